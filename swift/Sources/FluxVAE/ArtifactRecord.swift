import Foundation

/// What a model says of itself: the record that fluxvae wrote into its metadata.
public struct ArtifactRecord: Equatable, Sendable {
  /// What the model was made as; the part an app needs.
  public struct Recipe: Codable, Equatable, Sendable {
    /// `flux1` or `flux2`.
    public let variant: String
    /// Compute precision: `float16` or `float32`.
    public let precision: String
    /// Layout of the latent and of the image.
    public let layout: TensorLayout
    /// `fixed`, `enumerated`, or `multifunction` (one function for each size).
    public let shapes: String
    /// Image sizes, height x width, as fluxvae spells them.
    public let sizes: [String]
  }

  public let recipe: Recipe
  public let contract: LatentContract
  /// SHA-256 of the weights the model was made from.
  public let weightsDigest: String
  /// Image sizes the model was made for, the default one first.
  public let sizes: [ImageSize]

  /// Names of the functions, the default one first; empty for a model of one function.
  public var functions: [String] {
    recipe.shapes == "multifunction" ? sizes.map(\.function) : []
  }
}

extension ArtifactRecord {
  static let prefix = "com.github.fluxvae."
  static let format = "1"

  /// The record among a model's user-defined metadata; nil when fluxvae did not make the model.
  ///
  /// - Throws: `FluxVAEError.recordFormat` or `.recordDamaged`.
  init?(metadata: [String: String]) throws {
    guard let found = metadata[Self.prefix + "format"] else { return nil }
    guard found == Self.format else {
      throw FluxVAEError.recordFormat(found: found, readable: Self.format)
    }
    recipe = try Self.decode("recipe", of: metadata)
    contract = try Self.decode("latent_contract", of: metadata)
    weightsDigest = try Self.text("weights_digest", of: metadata)
    guard contract.isUsable else {
      throw FluxVAEError.recordDamaged(
        key: "latent_contract",
        reason: """
          \(contract.channels) channels, scale \(contract.scale), values from \(contract.low) \
          to \(contract.high)
          """)
    }
    let sizes = recipe.sizes.compactMap(ImageSize.init(recipe:))
    guard !sizes.isEmpty, sizes.count == recipe.sizes.count else {
      throw FluxVAEError.recordDamaged(key: "recipe", reason: "the sizes \(recipe.sizes)")
    }
    self.sizes = sizes
  }

  private static func text(_ key: String, of metadata: [String: String]) throws -> String {
    guard let text = metadata[prefix + key] else {
      throw FluxVAEError.recordDamaged(key: key, reason: "it is not there")
    }
    return text
  }

  private static func decode<Value: Decodable>(
    _ key: String, of metadata: [String: String]
  ) throws -> Value {
    let text = try text(key, of: metadata)
    do {
      return try JSONDecoder().decode(Value.self, from: Data(text.utf8))
    } catch {
      throw FluxVAEError.recordDamaged(key: key, reason: "not what fluxvae writes: \(text)")
    }
  }
}
