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
public final class TiledDecoder: ImageDecoder {
  /// The compiled model (`.mlmodelc`).
  public var modelURL: URL { store.file.url }
  /// The space of the latents that this decoder is given.
  public var latentSpace: LatentSpace { store.space }
  /// How the model is loaded and judged; its function is not used.
  public var configuration: LatentDecoder.Configuration { store.configuration }
  /// Whether a function of the model is in memory.
  public var isLoaded: Bool { !store.isEmpty }
  private let store: ModelStore<TiledModel, LoadedPart>

  /// A decoder that is not loaded yet.
  public convenience init(
    modelAt url: URL, for space: LatentSpace,
    configuration: LatentDecoder.Configuration = LatentDecoder.Configuration()
  ) {
    self.init(ModelStore(modelAt: url, for: space, configuration))
  }

  init(_ store: ModelStore<TiledModel, LoadedPart>) { self.store = store }

  /// Loads the functions that make images of `size`, unless they are loaded.
  ///
  /// - Parameter size: Nil for the first size that the model was made for.
  /// - Throws: `FluxVAEError`, also for a size that cannot be made; `CancellationError`.
  public func load(for size: ImageSize? = nil) async throws {
    try await store.turn { epoch in
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
    try await store.turn { epoch in
      for name in try await functions(for: size, since: epoch) where store[name] == nil {
        _ = try await store.file.load(name, LoadedPart.init)
      }
    }
  }

  /// Releases the model. A decode that was asked for before ends as it would have, and keeps
  /// nothing loaded.
  public func unload() { store.removeAll() }

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

  /// `report(for:)`, blocking its thread.
  @available(*, noasync, message: "blocks its thread: await report(for:)")
  public func reportBlocking(for size: ImageSize) throws -> TilingReport {
    try blocking { try await self.report(for: size) }
  }

  /// The image of a latent. Loads the functions for its size when they are not loaded.
  ///
  /// - Throws: `FluxVAEError`, with what was expected and what came; `CancellationError`.
  public func decode(_ latent: Latent) async throws -> DecodedImage {
    try await store.turn { epoch in
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
        plan.place(
          try await tile.run(inputs, giving: plan.tileShape), row, column, on: &canvas)
      }
      return try plan.image(canvas)
    }
  }
}

extension TiledDecoder {
  /// What the model says of itself, from memory or else read now.
  private func model(since epoch: Int) async throws -> TiledModel {
    try await store.description(since: epoch) {
      try await store.file.describe(nil) { description in
        let record = try ArtifactRecord(description)
        try store.judge(record?.contract)
        guard let record else { throw FluxVAEError.contractMissing(modelURL) }
        return TiledModel(record, description)
      }
    }
  }

  private func functions(for size: ImageSize?, since epoch: Int) async throws -> [String] {
    let model = try await model(since: epoch)
    return try Plan(model, size: size ?? model.record.sizes[0]).functions
  }

  /// A function, from memory or else loaded now.
  private func part(_ name: String, since epoch: Int) async throws -> LoadedPart {
    try await store.function(name, since: epoch) {
      try await store.file.load(name, LoadedPart.init)
    }
  }
}
