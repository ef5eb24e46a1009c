/// Which latent a decoder wants and what it gives back, as fluxvae wrote it into the model.
public struct LatentContract: Codable, Equatable, Sendable {
  /// Identifier of the latent space; compared on load.
  public let space: String
  /// The same in a sentence.
  public let wants: String
  /// Channels of the latent.
  public let channels: Int
  /// Image pixels per latent pixel, each way.
  public let scale: Int
  /// Lower end of the image's values. Photos go about 0.1 beyond either end.
  public let low: Float
  /// Upper end of the image's values.
  public let high: Float

  /// The values that black and white stand for.
  public var range: ClosedRange<Float> { low...high }

  /// A contract whose numbers can be used, or nil: positive counts, `low` below `high`.
  var isUsable: Bool { channels > 0 && scale > 0 && low.isFinite && high.isFinite && low < high }
}
