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
/// One decode runs at a time, in the order asked for. The `async` form can be cancelled between
/// tiles. Functions are loaded when they are first needed; `unload()` gives the memory back.
public final class TiledDecoder: Sendable {
  /// The compiled model (`.mlmodelc`).
  public let modelURL: URL
  /// The space of the latents that this decoder is given.
  public let latentSpace: LatentSpace
  /// How the model is loaded and judged; its function is not used.
  public let configuration: LatentDecoder.Configuration
  private let gate = TurnGate()
  private let store = PartStore()

  /// A decoder that is not loaded yet.
  public init(
    modelAt url: URL, for space: LatentSpace,
    configuration: LatentDecoder.Configuration = LatentDecoder.Configuration()
  ) {
    modelURL = url
    latentSpace = space
    self.configuration = configuration
  }

  /// Lets the model go. A decode that runs meanwhile ends as it would have.
  public func unload() { store.removeAll() }

  /// What an image of `size` costs in tiles. Loads the model when it is not loaded.
  ///
  /// - Throws: `FluxVAEError`, also for a size that cannot be made.
  public func report(for size: ImageSize) throws -> TilingReport {
    try gate.blockingTurn {
      let plan = try Plan(record(), size: size)
      return TilingReport(plan.grid, size: size, scale: plan.scale, stride: plan.tiles.stride)
    }
  }

  /// The image of a latent. Loads the model when it is not loaded. Blocks its thread.
  ///
  /// - Throws: `FluxVAEError`, with what was expected and what came.
  public func decode(_ latent: Latent) throws -> DecodedImage {
    try gate.blockingTurn {
      let plan = try Plan(record(), latent: latent)
      let features = try part(plan.front).run([Plan.latent: plan.input(latent)])
      var fixed: [String: Planes] = [:]
      if let blocks = plan.samples(of: features) {
        let measure = try part(plan.measure)
        fixed[Plan.statistics] = Planes.pooled(
          try blocks.map { try measure.run([Plan.features: $0]) })
      }
      let tile = try part(plan.grid.function)
      var canvas = plan.canvas
      for (row, column) in plan.grid.cells {
        var inputs = fixed
        inputs[Plan.features] = plan.block(of: features, row, column)
        try plan.place(tile.run(inputs), row, column, on: &canvas)
      }
      return plan.image(canvas)
    }
  }

  /// The image of a latent. Loads the model when it is not loaded.
  ///
  /// - Throws: `FluxVAEError`, with what was expected and what came; `CancellationError`.
  public func decode(_ latent: Latent) async throws -> DecodedImage {
    try await gate.turn {
      let plan = try Plan(await record(), latent: latent)
      let features = try await part(plan.front).run([Plan.latent: plan.input(latent)])
      var fixed: [String: Planes] = [:]
      if let blocks = plan.samples(of: features) {
        let measure = try await part(plan.measure)
        var found: [Planes] = []
        for block in blocks { found.append(try await measure.run([Plan.features: block])) }
        fixed[Plan.statistics] = Planes.pooled(found)
      }
      let tile = try await part(plan.grid.function)
      var canvas = plan.canvas
      for (row, column) in plan.grid.cells {
        var inputs = fixed
        inputs[Plan.features] = plan.block(of: features, row, column)
        try plan.place(try await tile.run(inputs), row, column, on: &canvas)
      }
      return plan.image(canvas)
    }
  }
}

// Loading.
extension TiledDecoder {
  /// A function, from memory or else loaded now; nil is the model's default one, which is a front.
  private func part(_ name: String?) throws -> LoadedPart {
    if let loaded = store[name] { return loaded }
    try checkPresence()
    do {
      return try kept(MLModel(contentsOf: modelURL, configuration: coreML(name)), as: name)
    } catch {
      throw failure(error, function: name)
    }
  }

  private func part(_ name: String?) async throws -> LoadedPart {
    if let loaded = store[name] { return loaded }
    try checkPresence()
    try Task.checkCancellation()
    do {
      let model = try await MLModel.load(contentsOf: modelURL, configuration: coreML(name))
      return try kept(model, as: name)
    } catch {
      try Task.checkCancellation()
      throw failure(error, function: name)
    }
  }

  private func kept(_ model: MLModel, as name: String?) throws -> LoadedPart {
    let part = try LoadedPart(model)
    try configuration.contractCheck.judge(
      part.record?.contract, for: latentSpace, model: modelURL)
    store[name] = part
    return part
  }

  private func record() throws -> ArtifactRecord { try known(part(nil).record) }

  private func record() async throws -> ArtifactRecord { try known(await part(nil).record) }

  private func known(_ record: ArtifactRecord?) throws -> ArtifactRecord {
    guard let record else { throw FluxVAEError.contractMissing(modelURL) }
    return record
  }

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
    (error as? FluxVAEError)
      ?? .loadFailed(modelURL, function: function, reason: error.localizedDescription)
  }
}
