import Foundation

/// What fluxvae wrote into a model's metadata, as far as the harness judges by it.
///
/// The Python side is `fluxvae/artifact/save.py`. Nil fields are entries that are not there; a foreign
/// model has no record at all.
public struct ArtifactRecord: Equatable, Sendable {
  public let variant: String?
  public let precision: Precision?
  public let layout: Layout?
  public let sizes: [ImageSize]
  public let multifunction: Bool
  public let weightsDigest: String?
  public let latentSpace: String?
  public let scale: Int?
  /// The range of the image that a decoder makes, which PSNR is of: 1 for [0, 1], 2 for [-1, 1].
  /// Nil for an encoder, as latents have no common range.
  public let peak: Double?
  /// Whether images go in and latents come out.
  public let encodes: Bool
  /// Nil in a model that is a whole decoder.
  public let part: DecoderPart?
  /// Whether it works in tiles: several functions for one image.
  public let tiled: Bool

  static let prefix = "com.github.fluxvae."
  static let format = "1"

  private struct Recipe: Decodable {
    let variant: String
    let precision: Precision
    let layout: Layout
    let sizes: [String]
    let shapes: String
    /// Absent in a decoder's.
    let part: String?
  }

  private struct Contract: Decodable {
    let space: String
    let scale: Int
    let low: Double?
    let high: Double?
  }

  /// Nil when the model was not made by fluxvae.
  ///
  /// - Throws: `ModelFault.record` when an entry is damaged or of another version.
  public init?(metadata: [String: String]) throws(ModelFault) {
    guard let format = metadata[Self.prefix + "format"] else { return nil }
    guard format == Self.format else {
      throw .record("its format is \(format), and this harness reads \(Self.format)")
    }
    let recipe = try Self.entry("recipe", as: Recipe.self, in: metadata)
    let contract = try Self.entry("latent_contract", as: Contract.self, in: metadata)
    variant = recipe?.variant
    precision = recipe?.precision
    layout = recipe?.layout
    sizes = (recipe?.sizes ?? []).compactMap { ImageSize($0) }
    multifunction = recipe?.shapes == "multifunction"
    weightsDigest = metadata[Self.prefix + "weights_digest"]
    latentSpace = contract?.space
    scale = contract?.scale
    encodes = recipe?.part == "encoder"
    if !encodes, let low = contract?.low, let high = contract?.high {
      peak = high - low
    } else {
      peak = nil
    }
    part = try Self.entry("part", as: DecoderPart.self, in: metadata)
    tiled = metadata[Self.prefix + "tiles"] != nil
  }

  private static func entry<Value: Decodable>(
    _ key: String, as type: Value.Type, in metadata: [String: String]
  ) throws(ModelFault) -> Value? {
    guard let text = metadata[prefix + key] else { return nil }
    do {
      return try JSONDecoder().decode(type, from: Data(text.utf8))
    } catch {
      throw .record("its entry \(key) cannot be read")
    }
  }
}
