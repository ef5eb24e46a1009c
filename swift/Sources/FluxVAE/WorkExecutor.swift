import Dispatch
import Synchronization

/// The threads that decoders work on, apart from those that all tasks of a program share.
///
/// Those are as many as there are cores: where synchronous code blocks all of them on a decoder,
/// the decode they wait for must still go on. Each job has an autorelease pool of its own, so what
/// Core ML leaves for later does not pile up over the tiles of an image.
final class WorkExecutor: TaskExecutor {
  static let shared = WorkExecutor()

  private let queue = DispatchQueue(
    label: "FluxVAE.work", qos: .userInitiated, attributes: .concurrent,
    autoreleaseFrequency: .workItem)

  func enqueue(_ job: consuming ExecutorJob) {
    let job = UnownedJob(job)
    queue.async { job.runSynchronously(on: self.asUnownedTaskExecutor()) }
  }
}

/// Runs `body` as a task and blocks the calling thread until it has ended.
///
/// - Throws: What `body` throws.
@available(*, noasync, message: "blocks its thread: await the work itself")
func blocking<Value: Sendable>(
  _ body: @escaping @Sendable () async throws -> Value
) throws -> Value {
  let ended = DispatchSemaphore(value: 0)
  let result = Mutex<Result<Value, any Error>?>(nil)
  Task.detached(executorPreference: WorkExecutor.shared, priority: .userInitiated) {
    do {
      let value = try await body()
      result.withLock { $0 = .success(value) }
    } catch {
      result.withLock { $0 = .failure(error) }
    }
    ended.signal()
  }
  ended.wait()
  guard let found = result.withLock({ $0 }) else { throw CancellationError() }
  return try found.get()
}
