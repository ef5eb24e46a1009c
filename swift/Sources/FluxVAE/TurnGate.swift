import Synchronization

/// Gives turns one at a time, in the order they were asked for.
///
/// Every prediction in flight holds its memory. A task that is cancelled while it waits leaves the
/// queue. No thread waits here.
final class TurnGate: Sendable {
  private struct Waiter {
    let id: UInt64
    let continuation: CheckedContinuation<Void, any Error>
  }

  private struct State {
    var taken = false
    var queue: [Waiter] = []
    var asked: UInt64 = 0
  }

  private let state = Mutex(State())

  /// Waits for a turn and runs `body`, on the threads of `WorkExecutor`.
  ///
  /// - Throws: `CancellationError` when the task is cancelled before its turn; what `body` throws.
  func turn<Result: Sendable>(_ body: () async throws -> Result) async throws -> Result {
    // The wait too: a turn given to a task that no thread is free to resume would be held for ever.
    try await withTaskExecutorPreference(WorkExecutor.shared) {
      try await wait()
      defer { pass() }
      return try await body()
    }
  }

  private func wait() async throws {
    let id = state.withLock { state in
      state.asked += 1
      return state.asked
    }
    try await withTaskCancellationHandler {
      try await withCheckedThrowingContinuation { continuation in
        enqueue(Waiter(id: id, continuation: continuation))
      }
    } onCancel: {
      leave(id)
    }
  }

  private func enqueue(_ waiter: Waiter) {
    state.withLock { state in
      if Task.isCancelled {  // asked under the lock, so that `leave` cannot come in between
        waiter.continuation.resume(throwing: CancellationError())
      } else if state.taken {
        state.queue.append(waiter)
      } else {
        state.taken = true
        waiter.continuation.resume()
      }
    }
  }

  private func leave(_ id: UInt64) {
    state.withLock { state in
      guard let index = state.queue.firstIndex(where: { $0.id == id }) else { return }
      state.queue.remove(at: index).continuation.resume(throwing: CancellationError())
    }
  }

  /// Hands the turn to the next in the queue.
  private func pass() {
    state.withLock { state in
      guard !state.queue.isEmpty else {
        state.taken = false
        return
      }
      state.queue.removeFirst().continuation.resume()
    }
  }
}
