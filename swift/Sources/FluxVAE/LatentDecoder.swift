import CoreML
import Foundation

/// A compiled FLUX decoder: latents in, images out.
///
///     let decoder = LatentDecoder(modelAt: url, for: .flux2SamplerUnpatchified)
///     let image = try await decoder.decode(Latent(floats, height: 96, width: 96))
///
/// Making one loads nothing. The first decode, or `load()`, does; `unload()` gives the memory back.
/// One decode runs at a time, in the order asked for. Methods are asynchronous, and can be
/// cancelled. For code without tasks each has a twin that blocks its thread and says so:
/// `decodeBlocking(_:)`.
public final class LatentDecoder: ImageDecoder {
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
  public var modelURL: URL { store.file.url }
  /// The space of the latents that this decoder is given.
  public var latentSpace: LatentSpace { store.space }
  public var configuration: Configuration { store.configuration }
  /// Whether a function of the model is in memory.
  public var isLoaded: Bool { !store.isEmpty }
  private let store: ModelStore<DecoderInterface, LoadedFunction>

  /// A decoder that is not loaded yet.
  ///
  /// - Parameters:
  ///   - url: A compiled model. Keep it at one path: Core ML caches by path.
  ///   - space: The space of the app's latents; the model's contract must name the same.
  ///   - configuration: How to load and judge it.
  public convenience init(
    modelAt url: URL, for space: LatentSpace, configuration: Configuration = Configuration()
  ) {
    self.init(ModelStore(modelAt: url, for: space, configuration))
  }

  init(_ store: ModelStore<DecoderInterface, LoadedFunction>) { self.store = store }

  /// Loads the function for images of `size`, unless it is loaded.
  ///
  /// - Parameter size: Nil for the function that `configuration` names, or the default one.
  /// - Throws: `FluxVAEError`, also for a contract that does not fit; `CancellationError`.
  public func load(for size: ImageSize? = nil) async throws {
    try await store.turn { epoch in
      _ = try await function(name(for: size, since: epoch), since: epoch)
    }
  }

  /// Loads the function for images of `size` and releases it again, unless it is loaded: Core ML's
  /// cache is warm after that.
  ///
  /// - Parameter size: Nil for the function that `configuration` names, or the default one.
  /// - Throws: `FluxVAEError`, also for a contract that does not fit; `CancellationError`.
  public func prewarm(for size: ImageSize? = nil) async throws {
    try await store.turn { epoch in
      let name = try await name(for: size, since: epoch)
      if store[name] == nil { _ = try await open(name) }
    }
  }

  /// Releases the model. A decode that was asked for before ends as it would have, and keeps
  /// nothing loaded.
  public func unload() { store.removeAll() }

  /// What the model takes and gives. Loads nothing, and waits for no decode.
  ///
  /// - Throws: `FluxVAEError`, also for a contract that does not fit; `CancellationError`.
  public func describe() async throws -> DecoderDescription {
    try await DecoderDescription(interface(since: store.epoch))
  }

  /// The image of a latent. Loads the function for its size when it is not loaded.
  ///
  /// - Throws: `FluxVAEError`, with what was expected and what came; `CancellationError`.
  public func decode(_ latent: Latent) async throws -> DecodedImage {
    try await store.turn { epoch in
      let interface = try await interface(since: epoch)
      let (map, size) = try interface.read(latent)
      let function = try await function(interface.otherFunction(for: size), since: epoch)
      return try await function.decode(map, size: size)
    }
  }
}

extension LatentDecoder {
  /// What the model says of itself, from memory or else read now.
  private func interface(since epoch: Int) async throws -> DecoderInterface {
    try await store.description(since: epoch) {
      try await store.file.describe(configuration.function, interface)
    }
  }

  /// The function for images of `size`; nil for the one to start with.
  private func name(for size: ImageSize?, since epoch: Int) async throws -> String? {
    let interface = try await interface(since: epoch)
    return try size.flatMap(interface.otherFunction)
  }

  /// A function, from memory or else loaded now; nil is the one to start with.
  private func function(_ name: String?, since epoch: Int) async throws -> LoadedFunction {
    try await store.function(name, since: epoch) { try await open(name) }
  }

  private func open(_ name: String?) async throws -> LoadedFunction {
    try await store.file.load(name ?? configuration.function) { model in
      try LoadedFunction(model, interface(model.modelDescription))
    }
  }

  private func interface(_ description: MLModelDescription) throws -> DecoderInterface {
    let interface = try DecoderInterface(
      description, ignoringRecord: configuration.contractCheck == .off)
    try store.judge(interface.record?.contract)
    return interface
  }
}
