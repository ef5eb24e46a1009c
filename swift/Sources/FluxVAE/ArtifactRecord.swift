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
    /// `full` or `small` for a KL decoder; nil for a tiny one.
    public let decoder: String?
  }

  /// How a model makes tiles; lengths in latent pixels.
  public struct Tiles: Codable, Equatable, Sendable {
    /// Rows and columns that each function of tiles takes: `tile`, of any image, and others for
    /// images of one size, which they suit better.
    public let shapes: [String: [Int]]
    /// How far away a latent pixel can be and still matter.
    public let halo: Int
    /// Function `statistics` takes every so many-th block of rows and columns; nil without one.
    public let stride: Int?
  }

  /// Which part of a decoder a model is, where it was cut into two.
  public struct Part: Codable, Equatable, Sendable {
    public let number: Int
    public let of: Int
    /// File name of the other part's package.
    public let other: String
  }

  public let recipe: Recipe
  public let contract: LatentContract
  /// SHA-256 of the weights the model was made from.
  public let weightsDigest: String
  /// Image sizes the model was made for, the default one first. A tiny decoder in tiles makes others
  /// as well.
  public let sizes: [ImageSize]
  /// Nil for a model that makes whole images in one go.
  public let tiles: Tiles?
  /// Nil for a model that is a whole decoder.
  public let part: Part?

  /// Names of the functions, the default one first; empty for a model of one function.
  public var functions: [String] {
    recipe.shapes == "multifunction" ? sizes.map(\.function) : []
  }
}

extension ArtifactRecord.Tiles {
  fileprivate var isUsable: Bool {
    halo >= 0 && stride ?? 1 > 0 && !shapes.isEmpty
      && shapes.values.allSatisfy { $0.count == 2 && $0.allSatisfy { $0 > 0 } }
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
    tiles = try Self.optional("tiles", of: metadata)
    part = try Self.optional("part", of: metadata)
    if let tiles, !tiles.isUsable {
      throw FluxVAEError.recordDamaged(key: "tiles", reason: "\(tiles)")
    }
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

  private static func optional<Value: Decodable>(
    _ key: String, of metadata: [String: String]
  ) throws -> Value? {
    metadata[prefix + key] == nil ? nil : try decode(key, of: metadata)
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
