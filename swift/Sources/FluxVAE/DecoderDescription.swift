/// What a decoder takes and gives, read from the model's description.
public struct DecoderDescription: Equatable, Sendable {
  /// Sizes of the images it makes, over all its functions, the default one first. A tiny decoder of
  /// tiles makes others as well: ask `TiledDecoder.report(for:)`.
  public let sizes: [ImageSize]
  /// Names of its functions for whole images, the default one first; empty for a model of one
  /// function, for one of tiles, and for one that fluxvae did not make.
  public let functions: [String]
  /// Layout of its latent and of its image.
  public let layout: TensorLayout
  /// Channels of its latent.
  public let channels: Int
  /// Image pixels per latent pixel, each way.
  public let scale: Int
  /// What fluxvae wrote into it; nil for others' models.
  public let record: ArtifactRecord?

  init(_ interface: DecoderInterface) {
    sizes = interface.allSizes
    functions = interface.record?.functions ?? []
    layout = interface.layout
    channels = interface.channels
    scale = interface.scale
    record = interface.record
  }

  /// A model of tiles.
  init(_ record: ArtifactRecord) {
    sizes = record.sizes
    functions = []
    layout = record.recipe.layout
    channels = record.contract.channels
    scale = record.contract.scale
    self.record = record
  }
}
