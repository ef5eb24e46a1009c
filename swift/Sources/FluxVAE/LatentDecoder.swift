import CoreML
import Foundation

/// A compiled FLUX decoder: latents in, images out.
///
///     let decoder = LatentDecoder(modelAt: url, for: .flux2SamplerUnpatchified)
///     let image = try await decoder.decode(Latent(floats, height: 96, width: 96))
///
/// Making one loads nothing. The first decode, or `load()`, does; `unload()` gives the memory back.
/// One decode runs at a time, in the order asked for. Every method comes in two forms: the plain
/// one blocks its thread, and the `async` one, which is chosen where there is an `await`, can be
/// cancelled.
public final class LatentDecoder: Sendable {
  /// How a model is loaded and judged.
  public struct Configuration: Sendable {
    /// Compute units that Core ML may use.
    public var computeUnits: MLComputeUnits
    /// How strictly the model's latent contract is compared.
    public var contractCheck: ContractCheck
    /// The function to start with of a model that has several; nil is the model's default one.
    ///
    /// Functions for other sizes are loaded when a latent needs them.
    public var function: String?

    public init(
      computeUnits: MLComputeUnits = .all, contractCheck: ContractCheck = .required,
      function: String? = nil
    ) {
      self.computeUnits = computeUnits
      self.contractCheck = contractCheck
      self.function = function
    }
  }

  /// The compiled model (`.mlmodelc`).
  public let modelURL: URL
  /// The space of the latents that this decoder is given.
  public let latentSpace: LatentSpace
  public let configuration: Configuration
  private let gate = TurnGate()
  private let store = FunctionStore()

  /// A decoder that is not loaded yet.
  ///
  /// - Parameters:
  ///   - url: A compiled model. Keep it at one place: Core ML caches by path.
  ///   - space: The space of the app's latents; the model's contract must name the same.
  ///   - configuration: How to load and judge it.
  public init(
    modelAt url: URL, for space: LatentSpace, configuration: Configuration = Configuration()
  ) {
    modelURL = url
    latentSpace = space
    self.configuration = configuration
  }

  /// Whether the model is in memory.
  public var isLoaded: Bool { store[nil] != nil }

  /// Lets the model go. A decode that runs meanwhile ends as it would have.
  public func unload() {
    store.removeAll()
  }
}

// The forms that block their thread. Not for the inside of a task.
extension LatentDecoder {
  /// Loads the model, unless it is loaded.
  ///
  /// - Throws: `FluxVAEError`, also for a contract that does not fit.
  public func load() throws {
    _ = try gate.blockingTurn { try function(nil) }
  }

  /// Loads the model and lets it go again, unless it is loaded: Core ML's cache is warm after that.
  public func prewarm() throws {
    try gate.blockingTurn { if !isLoaded { _ = try open(configuration.function) } }
  }

  /// What the model takes and gives. Loads it when it is not loaded.
  public func describe() throws -> DecoderDescription {
    try gate.blockingTurn { try DecoderDescription(function(nil).interface) }
  }

  /// The image of a latent. Loads the model when it is not loaded.
  ///
  /// - Throws: `FluxVAEError`, with what was expected and what came.
  public func decode(_ latent: Latent) throws -> DecodedImage {
    try gate.blockingTurn {
      let main = try function(nil)
      let size = try main.interface.size(of: latent)
      let name = try main.interface.otherFunction(for: size)
      return try (name == nil ? main : function(name)).decode(latent, size: size)
    }
  }

  /// The function of this name, or the main one, from memory or else loaded now.
  private func function(_ name: String?) throws -> LoadedFunction {
    if let loaded = store[name] { return loaded }
    let epoch = store.epoch
    let function = try open(name ?? configuration.function)
    store.keep(function, as: name, since: epoch)
    return function
  }

  private func open(_ name: String?) throws -> LoadedFunction {
    try checkPresence()
    let model: MLModel
    do {
      model = try MLModel(contentsOf: modelURL, configuration: coreML(name))
    } catch {
      throw failure(error, function: name)
    }
    return try judged(model)
  }
}

// The forms for tasks.
extension LatentDecoder {
  /// Loads the model, unless it is loaded.
  ///
  /// - Throws: `FluxVAEError`, also for a contract that does not fit; `CancellationError`.
  public func load() async throws {
    _ = try await gate.turn { try await function(nil) }
  }

  /// Loads the model and lets it go again, unless it is loaded: Core ML's cache is warm after that.
  public func prewarm() async throws {
    try await gate.turn { if !isLoaded { _ = try await open(configuration.function) } }
  }

  /// What the model takes and gives. Loads it when it is not loaded.
  public func describe() async throws -> DecoderDescription {
    try await gate.turn { try await DecoderDescription(function(nil).interface) }
  }

  /// The image of a latent. Loads the model when it is not loaded.
  ///
  /// - Throws: `FluxVAEError`, with what was expected and what came; `CancellationError`.
  public func decode(_ latent: Latent) async throws -> DecodedImage {
    try await gate.turn {
      let main = try await function(nil)
      let size = try main.interface.size(of: latent)
      let name = try main.interface.otherFunction(for: size)
      let chosen = name == nil ? main : try await function(name)
      return try await chosen.decode(latent, size: size)
    }
  }

  /// The function of this name, or the main one, from memory or else loaded now.
  private func function(_ name: String?) async throws -> LoadedFunction {
    if let loaded = store[name] { return loaded }
    let epoch = store.epoch
    let function = try await open(name ?? configuration.function)
    store.keep(function, as: name, since: epoch)
    return function
  }

  private func open(_ name: String?) async throws -> LoadedFunction {
    try checkPresence()
    try Task.checkCancellation()
    let model: MLModel
    do {
      model = try await MLModel.load(contentsOf: modelURL, configuration: coreML(name))
    } catch {
      try Task.checkCancellation()
      throw failure(error, function: name)
    }
    return try judged(model)
  }
}

// What both forms share.
extension LatentDecoder {
  private func checkPresence() throws {
    guard FileManager.default.fileExists(atPath: modelURL.path) else {
      throw FluxVAEError.modelNotFound(modelURL)
    }
  }

  private func coreML(_ function: String?) -> MLModelConfiguration {
    let settings = MLModelConfiguration()
    settings.computeUnits = configuration.computeUnits
    settings.functionName = function
    return settings
  }

  private func failure(_ error: any Error, function: String?) -> FluxVAEError {
    .loadFailed(modelURL, function: function, reason: error.localizedDescription)
  }

  private func judged(_ model: MLModel) throws -> LoadedFunction {
    let check = configuration.contractCheck
    let function = try LoadedFunction(model, ignoringRecord: check == .off)
    try check.judge(function.interface.record?.contract, for: latentSpace, model: modelURL)
    return function
  }
}
