import CoreML
import Foundation

/// A compiled FLUX decoder that makes images in tiles: any size, in the memory of one tile.
///
///     let decoder = TiledDecoder(modelAt: url, for: .flux2SamplerUnpatchified)
///     let image = try await decoder.decode(Latent(floats, height: 128, width: 128))
///
/// The model is one of `fluxvae convert --tile`. Its function `front` sees the whole latent, at
/// little cost; `tile` makes the picture piece by piece. Images of a tiny decoder are those of the
/// whole decode; `report(for:)` says what to expect of others, and what tiles cost.
///
/// One decode runs at a time, in the order asked for, and can be cancelled between tiles. Functions
/// are loaded when they are first needed; `unload()` gives the memory back. For code without tasks
/// each method has a twin that blocks its thread and says so: `decodeBlocking(_:)`.
public final class TiledDecoder: Sendable {
  /// The compiled model (`.mlmodelc`).
  public var modelURL: URL { file.url }
  /// The space of the latents that this decoder is given.
  public let latentSpace: LatentSpace
  /// How the model is loaded and judged; its function is not used.
  public let configuration: LatentDecoder.Configuration
  private let file: ModelFile
  private let gate = TurnGate()
  private let store = ModelStore<TiledModel, LoadedPart>()

  /// A decoder that is not loaded yet.
  public convenience init(
    modelAt url: URL, for space: LatentSpace,
    configuration: LatentDecoder.Configuration = LatentDecoder.Configuration()
  ) {
    self.init(
      ModelFile(url: url, computeUnits: configuration.computeUnits), for: space, configuration)
  }

  init(_ file: ModelFile, for space: LatentSpace, _ configuration: LatentDecoder.Configuration) {
    self.file = file
    latentSpace = space
    self.configuration = configuration
  }

  /// Whether a function of the model is in memory.
  public var isLoaded: Bool { !store.isEmpty }

  /// Releases the model. A decode that was asked for before ends as it would have, and keeps
  /// nothing loaded.
  public func unload() { store.removeAll() }

  /// Loads the functions that make images of `size`, unless they are loaded.
  ///
  /// - Parameter size: Nil for the first size that the model was made for.
  /// - Throws: `FluxVAEError`, also for a size that cannot be made; `CancellationError`.
  public func load(for size: ImageSize? = nil) async throws {
    let epoch = store.epoch
    try await gate.turn {
      for name in try await functions(for: size, since: epoch) {
        _ = try await part(name, since: epoch)
      }
    }
  }

  /// Loads the functions that make images of `size`, one at a time, and releases each again, unless
  /// it is loaded: Core ML's cache is warm after that.
  ///
  /// - Parameter size: Nil for the first size that the model was made for.
  /// - Throws: `FluxVAEError`, also for a size that cannot be made; `CancellationError`.
  public func prewarm(for size: ImageSize? = nil) async throws {
    let epoch = store.epoch
    try await gate.turn {
      for name in try await functions(for: size, since: epoch) where store[name] == nil {
        _ = try await file.load(name, LoadedPart.init)
      }
    }
  }

  /// What the model takes and gives. Loads nothing, and waits for no decode.
  ///
  /// - Throws: `FluxVAEError`, also for a contract that does not fit; `CancellationError`.
  public func describe() async throws -> DecoderDescription {
    try await DecoderDescription(model(since: store.epoch).record)
  }

  /// What an image of `size` costs in tiles. Loads nothing, and waits for no decode.
  ///
  /// - Throws: `FluxVAEError`, also for a size that cannot be made; `CancellationError`.
  public func report(for size: ImageSize) async throws -> TilingReport {
    let plan = try Plan(await model(since: store.epoch), size: size)
    return TilingReport(plan.grid, size: size, scale: plan.scale, stride: plan.tiles.stride)
  }

  /// The image of a latent. Loads the functions for its size when they are not loaded.
  ///
  /// - Throws: `FluxVAEError`, with what was expected and what came; `CancellationError`.
  public func decode(_ latent: Latent) async throws -> DecodedImage {
    let epoch = store.epoch
    return try await gate.turn {
      let (plan, input) = try Plan.reading(latent, await model(since: epoch))
      let features = try await part(plan.front, since: epoch).run([Plan.latent: input])
      var fixed: [String: Planes] = [:]
      if let measure = plan.measure {
        let measure = try await part(measure, since: epoch)
        var found: [Planes] = []
        for block in plan.samples(of: features) {
          found.append(try await measure.run([Plan.features: block]))
        }
        fixed[Plan.statistics] = Planes.pooled(found)
      }
      let tile = try await part(plan.grid.function, since: epoch)
      var canvas = plan.canvas
      for (row, column) in plan.grid.cells {
        var inputs = fixed
        inputs[Plan.features] = plan.block(of: features, row, column)
        try plan.place(try await tile.run(inputs), row, column, on: &canvas)
      }
      return try plan.image(canvas)
    }
  }
}

extension TiledDecoder {
  /// What the model says of itself, from memory or else read now.
  private func model(since epoch: Int) async throws -> TiledModel {
    if let known = store.description { return known }
    let model = try await file.describe(nil) { description in
      let record = try ArtifactRecord(description)
      try configuration.contractCheck.judge(record?.contract, for: latentSpace, model: modelURL)
      guard let record else { throw FluxVAEError.contractMissing(modelURL) }
      return TiledModel(record, description)
    }
    store.keep(model, since: epoch)
    return model
  }

  private func functions(for size: ImageSize?, since epoch: Int) async throws -> [String] {
    let model = try await model(since: epoch)
    return try Plan(model, size: size ?? model.record.sizes[0]).functions
  }

  /// A function, from memory or else loaded now.
  private func part(_ name: String, since epoch: Int) async throws -> LoadedPart {
    if let loaded = store[name] { return loaded }
    let part = try await file.load(name, LoadedPart.init)
    store.keep(part, as: name, since: epoch)
    return part
  }
}
