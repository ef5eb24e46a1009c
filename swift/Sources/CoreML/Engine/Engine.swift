import Dispatch
import Foundation
import Synchronization

/// The program that runs models for this process: `python -m fluxvae.mil.serve`.
///
/// One serves the whole process, since starting it takes seconds, and is started again when it has
/// ended. It answers in the order it is asked; callers may have several requests under way.
final class Engine: Sendable {
  typealias Answer = Result<(EngineReply, EnginePayload), MLModelError>

  private struct State {
    var nextIdentifier = 1
    var pending: [Int: @Sendable (Answer) -> Void] = [:]
    var failure: MLModelError?
  }

  private static let current = Mutex<Engine?>(nil)

  let process: EngineProcess
  private let state = Mutex(State())
  private let writer = DispatchQueue(label: "CoreML.Engine.writer")

  /// The engine that is running, or a new one.
  static func shared() throws -> Engine {
    try current.withLock { engine in
      if let engine, engine.state.withLock({ $0.failure == nil }) { return engine }
      let named = ProcessInfo.processInfo.environment["FLUXVAE_PYTHON"] ?? ""
      let started = try Engine(python: named.isEmpty ? "python3" : named)
      engine = started
      return started
    }
  }

  init(python: String) throws {
    process = try EngineProcess(python: python)
    let thread = Thread { [self] in readReplies() }
    thread.name = "CoreML.Engine.reader"
    thread.start()
  }

  /// Asks and waits. The answer comes from the engine's own thread, so a thread that tasks share is
  /// blocked for no longer than the engine takes.
  func ask(_ request: EngineRequest, payload: Data = Data()) throws -> (EngineReply, EnginePayload)
  {
    let answered = DispatchSemaphore(value: 0)
    let place = Mutex<Answer?>(nil)
    send(request, payload) { answer in
      place.withLock { $0 = answer }
      answered.signal()
    }
    answered.wait()
    guard let answer = place.withLock({ $0 }) else { throw MLModelError(.generic, "No answer.") }
    return try answer.get()
  }

  /// Asks and suspends until the answer comes.
  func ask(
    _ request: EngineRequest, payload: Data = Data()
  ) async throws -> (EngineReply, EnginePayload) {
    try await withCheckedThrowingContinuation { continuation in
      send(request, payload) { continuation.resume(with: $0) }
    }
  }

  /// Asks and does not wait for the answer, nor care for it.
  func tell(_ request: EngineRequest) {
    send(request, Data()) { _ in }
  }

  private func send(
    _ request: EngineRequest, _ payload: Data, answer: @escaping @Sendable (Answer) -> Void
  ) {
    var request = request
    let failure = state.withLock { state in
      request.id = state.nextIdentifier
      state.nextIdentifier += 1
      if state.failure == nil { state.pending[request.id] = answer }
      return state.failure
    }
    if let failure { return answer(.failure(failure)) }
    guard let header = try? JSONEncoder().encode(request) else {
      return settle(request.id, .failure(MLModelError(.generic, "A request is not JSON.")))
    }
    writer.async { [self] in
      // When it cannot be written the engine has gone, which the reader notices and reports.
      let prefix = Self.prefix(header: header.count, payload: payload.count)
      _ = [prefix, header, payload].allSatisfy { $0.withUnsafeBytes { process.write($0) } }
    }
  }

  private func readReplies() {
    while let (reply, payload) = readReply() {
      guard let identifier = reply.id else { continue }
      if let refusal = reply.error {
        settle(identifier, .failure(refusal.modelError))
      } else {
        settle(identifier, .success((reply, payload)))
      }
    }
    let ending = process.finish()
    let said = process.lastWords().map { " Its last words: \($0)" } ?? ""
    let error = MLModelError(
      .generic,
      "The engine that runs models on Linux (process \(process.identifier)) \(ending) "
        + "before it answered; load the model again.\(said)")
    let abandoned = state.withLock { state in
      state.failure = error
      defer { state.pending = [:] }
      return state.pending
    }
    for answer in abandoned.values { answer(.failure(error)) }
  }

  private func readReply() -> (EngineReply, EnginePayload)? {
    var prefix = [UInt8](repeating: 0, count: 12)
    guard prefix.withUnsafeMutableBytes({ process.read(into: $0) }) else { return nil }
    let (headerCount, payloadCount) = Self.counts(prefix)
    var header = Data(count: headerCount)
    let payload = EnginePayload(count: payloadCount)
    let body = UnsafeMutableRawBufferPointer(rebasing: payload.bytes[..<payloadCount])
    guard header.withUnsafeMutableBytes({ process.read(into: $0) }), process.read(into: body),
      let reply = try? JSONDecoder().decode(EngineReply.self, from: header)
    else { return nil }
    return (reply, payload)
  }

  private func settle(_ identifier: Int, _ answer: Answer) {
    let waiting = state.withLock { $0.pending.removeValue(forKey: identifier) }
    waiting?(answer)
  }

  private static func prefix(header: Int, payload: Int) -> Data {
    var data = withUnsafeBytes(of: UInt32(header).littleEndian) { Data($0) }
    withUnsafeBytes(of: UInt64(payload).littleEndian) { data.append(contentsOf: $0) }
    return data
  }

  private static func counts(_ prefix: [UInt8]) -> (header: Int, payload: Int) {
    prefix.withUnsafeBytes { bytes in
      (
        Int(UInt32(littleEndian: bytes.loadUnaligned(as: UInt32.self))),
        Int(UInt64(littleEndian: bytes.loadUnaligned(fromByteOffset: 4, as: UInt64.self)))
      )
    }
  }
}
