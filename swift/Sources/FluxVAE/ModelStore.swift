import Foundation
import Synchronization

/// A decoder's model: its file, and what is kept of it between calls, which are the description that
/// was read and the functions that were loaded.
final class ModelStore<Description: Sendable, Function: Sendable>: Sendable {
  private struct State {
    var epoch = 0
    var description: Description?
    var functions: [String?: Function] = [:]
  }

  let file: ModelFile
  /// The space of the latents that the decoder is given.
  let space: LatentSpace
  let configuration: LatentDecoder.Configuration
  private let gate = TurnGate()
  private let state = Mutex(State())

  init(_ file: ModelFile, for space: LatentSpace, _ configuration: LatentDecoder.Configuration) {
    self.file = file
    self.space = space
    self.configuration = configuration
  }

  convenience init(
    modelAt url: URL, for space: LatentSpace, _ configuration: LatentDecoder.Configuration
  ) {
    self.init(
      ModelFile(url: url, computeUnits: configuration.computeUnits), for: space, configuration)
  }

  /// Counts how often everything was released.
  ///
  /// Work remembers the count of the moment it was asked for: what it loads after `removeAll()` is
  /// for itself alone and is not kept.
  var epoch: Int { state.withLock { $0.epoch } }

  /// Whether no function is in memory.
  var isEmpty: Bool { state.withLock { $0.functions.isEmpty } }

  /// The function of this name; nil names the default one.
  subscript(name: String?) -> Function? { state.withLock { $0.functions[name] } }

  /// Waits for a turn and runs `body`, with the epoch in which the turn was asked for.
  ///
  /// - Throws: `CancellationError` when the task is cancelled before its turn; what `body` throws.
  func turn<Result: Sendable>(
    _ body: (_ epoch: Int) async throws -> Result
  ) async throws -> Result {
    let epoch = epoch
    return try await gate.turn { try await body(epoch) }
  }

  /// What the model says of itself, from memory or else read now; kept unless everything was
  /// released since `epoch`.
  func description(
    since epoch: Int, _ read: () async throws -> Description
  ) async throws -> Description {
    if let known = state.withLock({ $0.description }) { return known }
    let description = try await read()
    state.withLock { if $0.epoch == epoch { $0.description = description } }
    return description
  }

  /// A function, from memory or else loaded now; kept unless everything was released since `epoch`.
  func function(
    _ name: String?, since epoch: Int, _ load: () async throws -> Function
  ) async throws -> Function {
    if let loaded = self[name] { return loaded }
    let function = try await load()
    state.withLock { if $0.epoch == epoch { $0.functions[name] = function } }
    return function
  }

  /// Holds a model's contract against the latents that the decoder is given.
  ///
  /// - Throws: `FluxVAEError.contractMissing` or `.contractMismatch`.
  func judge(_ contract: LatentContract?) throws {
    try configuration.contractCheck.judge(contract, for: space, model: file.url)
  }

  /// Releases everything.
  func removeAll() { state.withLock { $0 = State(epoch: $0.epoch + 1) } }
}
