/// What a decoder takes and gives, read from the loaded model.
public struct DecoderDescription: Equatable, Sendable {
  /// Sizes of the images it makes, over all its functions, the default one first.
  public let sizes: [ImageSize]
  /// Names of its functions, the default one first; empty for a model of one function, and for one
  /// that fluxvae did not make.
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
}
