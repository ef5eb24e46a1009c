import Dispatch
import Synchronization

/// Gives turns one at a time, in the order they were asked for, to threads and tasks alike.
///
/// Core ML wants one synchronous prediction at a time of a model, and every prediction in flight
/// holds its memory. A task that is cancelled while it waits leaves the queue.
final class TurnGate: Sendable {
  private enum Waiter {
    case thread(DispatchSemaphore)
    case task(UInt64, CheckedContinuation<Void, any Error>)
  }

  private struct State {
    var taken = false
    var queue: [Waiter] = []
    var tasks: UInt64 = 0
  }

  private let state = Mutex(State())

  /// Waits for a turn, blocking the thread, and runs `body`.
  func blockingTurn<Result>(_ body: () throws -> Result) rethrows -> Result {
    if let semaphore = takeOrQueue() { semaphore.wait() }
    defer { pass() }
    return try body()
  }

  /// Waits for a turn and runs `body`.
  ///
  /// - Throws: `CancellationError` when the task is cancelled before its turn; what `body` throws.
  func turn<Result: Sendable>(_ body: () async throws -> Result) async throws -> Result {
    try await wait()
    defer { pass() }
    return try await body()
  }

  /// Nil when the turn was free and is taken now, else what to wait for.
  private func takeOrQueue() -> DispatchSemaphore? {
    state.withLock { state in
      guard state.taken else {
        state.taken = true
        return nil
      }
      let semaphore = DispatchSemaphore(value: 0)
      state.queue.append(.thread(semaphore))
      return semaphore
    }
  }

  private func wait() async throws {
    let id = state.withLock { state in
      state.tasks += 1
      return state.tasks
    }
    try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { continuation in
        enqueue(id, continuation)
      }
    } onCancel: {
      leave(id)
    }
  }

  private func enqueue(_ id: UInt64, _ continuation: CheckedContinuation<Void, any Error>) {
    state.withLock { state in
      if Task.isCancelled {  // asked under the lock, so that `leave` cannot come in between
        continuation.resume(throwing: CancellationError())
      } else if state.taken {
        state.queue.append(.task(id, continuation))
      } else {
        state.taken = true
        continuation.resume()
      }
    }
  }

  private func leave(_ id: UInt64) {
    state.withLock { state in
      for (index, waiter) in state.queue.enumerated() {
        if case .task(id, let continuation) = waiter {
          state.queue.remove(at: index)
          continuation.resume(throwing: CancellationError())
          return
        }
      }
    }
  }

  /// Hands the turn to the next in the queue.
  private func pass() {
    state.withLock { state in
      guard !state.queue.isEmpty else {
        state.taken = false
        return
      }
      switch state.queue.removeFirst() {
      case .thread(let semaphore): semaphore.signal()
      case .task(_, let continuation): continuation.resume()
      }
    }
  }
}
