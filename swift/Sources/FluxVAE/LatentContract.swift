internal import FluxVAESupport

/// Which latent a decoder wants and what it gives back, as fluxvae wrote it into the model.
public struct LatentContract: Codable, Equatable, Sendable {
  /// Identifier of the latent space; compared before the model is loaded.
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

  /// Whether the latent is a matrix of tokens, one row for each pixel of the map; nil for a map.
  var tokens: Bool? = nil

  /// Whether the latent is a matrix of tokens, `(1, rows * columns, channels)`, as a transformer
  /// gives it: hand that over as an array, or as a `Latent` of `rows` x `columns` in the layout
  /// `.nhwc`.
  public var isTokens: Bool { tokens ?? false }

  /// The values that black and white stand for.
  public var range: ClosedRange<Float> { low...high }
}

extension LatentContract {
  public init(from decoder: any Decoder) throws {
    let fields = try decoder.container(keyedBy: CodingKeys.self)
    space = try fields.decode(String.self, forKey: .space)
    wants = try fields.decode(String.self, forKey: .wants)
    channels = try fields.number(.channels)
    scale = try fields.number(.scale)
    low = try fields.number(.low)
    high = try fields.number(.high)
    tokens = try fields.decodeIfPresent(Bool.self, forKey: .tokens)
  }
}
