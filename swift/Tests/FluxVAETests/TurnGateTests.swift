import Synchronization
import Testing

@testable import FluxVAE

@Suite struct TurnGateTests {
  /// How many are inside at once, and the most there ever were.
  private final class Occupancy: Sendable {
    private let state = Mutex((inside: 0, most: 0, visits: 0))

    func enter() {
      state.withLock {
        $0.inside += 1
        $0.visits += 1
        $0.most = max($0.most, $0.inside)
      }
    }

    func leave() { state.withLock { $0.inside -= 1 } }
    var most: Int { state.withLock { $0.most } }
    var visits: Int { state.withLock { $0.visits } }
  }

  @Test func oneAtATime() async throws {
    let (gate, room) = (TurnGate(), Occupancy())
    try await withThrowingTaskGroup(of: Void.self) { tasks in
      for _ in 0..<16 {
        tasks.addTask {
          try await gate.turn {
            room.enter()
            await Task.yield()
            room.leave()
          }
        }
      }
      try await tasks.waitForAll()
    }
    #expect(room.most == 1)
    #expect(room.visits == 16)
  }

  @Test func aCancelledTaskLeavesTheQueue() async throws {
    let gate = TurnGate()
    let (started, startedSignal) = AsyncStream.makeStream(of: Void.self)
    let (finish, finishSignal) = AsyncStream.makeStream(of: Void.self)
    let holder = Task {
      try await gate.turn {
        startedSignal.finish()
        for await _ in finish {}
      }
    }
    for await _ in started {}
    let waiting = Task { try await gate.turn { true } }
    waiting.cancel()
    await #expect(throws: CancellationError.self) { try await waiting.value }
    finishSignal.finish()
    try await holder.value
    #expect(try await gate.turn { true })  // free again
  }

  @Test func aFailureGivesTheTurnBack() async throws {
    struct Failure: Error {}
    let gate = TurnGate()
    await #expect(throws: Failure.self) { try await gate.turn { throw Failure() } }
    #expect(try await gate.turn { true })
  }
}
