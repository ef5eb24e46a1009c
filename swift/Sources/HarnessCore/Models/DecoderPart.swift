import Foundation

/// Which part of a decoder a model is, where fluxvae cut it into two that run one after the other.
public struct DecoderPart: Decodable, Equatable, Sendable {
  /// 1 takes the latent, 2 gives the image.
  public let number: Int
  public let of: Int
  /// The same in both parts of one decoder, and in no others.
  public let whole: String
  /// File name of the other part's package.
  public let other: String

  /// Where the other part lies: beside `url`, with the same extension.
  func otherURL(beside url: URL) -> URL {
    let stem = URL(fileURLWithPath: other).deletingPathExtension().lastPathComponent
    return url.deletingLastPathComponent().appendingPathComponent(stem)
      .appendingPathExtension(url.pathExtension)
  }

  /// Whether `candidate` is the rest of the same decoder.
  func belongs(with candidate: DecoderPart?) -> Bool {
    guard let candidate else { return false }
    return candidate.whole == whole && candidate.of == of && candidate.number == 3 - number
  }
}
