import CoreML

/// One function of a model that makes whole images, in memory.
struct LoadedFunction: Sendable {
  private let interface: DecoderInterface
  private let part: LoadedPart

  /// - Throws: `FluxVAEError` when a feature is not a tensor.
  init(_ model: MLModel, _ interface: DecoderInterface) throws {
    part = try LoadedPart(model)
    self.interface = interface
  }

  /// - Throws: `FluxVAEError`; `CancellationError`.
  func decode(_ latent: LatentMap, size: ImageSize) async throws -> DecodedImage {
    let input = Planes(
      values: latent.values(in: interface.inputOrder), shape: interface.inputShape(latent))
    let layout = interface.layout
    let image = try await part.run(
      [interface.input.name: input],
      giving: layout.shape(channels: 3, height: size.height, width: size.width), what: "latent")
    return try DecodedImage(
      checking: image.values, size: size, layout: layout,
      range: interface.record?.contract.range)
  }
}
