internal import FluxVAESupport
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
  /// Image sizes the model was made for, the default one first. A tiny decoder in tiles makes
  /// others as well.
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
  public init(from decoder: any Decoder) throws {
    let fields = try decoder.container(keyedBy: CodingKeys.self)
    shapes = try fields.decode([String: [JSONNumber<Int>]].self, forKey: .shapes)
      .mapValues { $0.map(\.value) }
    halo = try fields.number(.halo)
    stride = try fields.decodeIfPresent(JSONNumber<Int>.self, forKey: .stride)?.value
  }
}

extension ArtifactRecord.Part {
  public init(from decoder: any Decoder) throws {
    let fields = try decoder.container(keyedBy: CodingKeys.self)
    number = try fields.number(.number)
    of = try fields.number(.of)
    other = try fields.decode(String.self, forKey: .other)
  }
}

extension ArtifactRecord {
  static let prefix = "com.github.fluxvae."
  static let format = "1"
  /// Sides of an image in pixels, as fluxvae takes them.
  static let sides = 1...999_999
  /// Channels, and rows or columns in latent pixels.
  static let counts = 1...sides.upperBound
  /// Factors between grids.
  static let scales = 1...1024

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
    let sizes = recipe.sizes.compactMap(ImageSize.init(recipe:))
    guard !sizes.isEmpty, sizes.count == recipe.sizes.count else {
      throw FluxVAEError.recordDamaged(
        key: "recipe",
        reason: """
          sizes is \(recipe.sizes); expected sides of \(Self.sides.lowerBound) to \
          \(Self.sides.upperBound) px, such as 768 or 768x1344
          """)
    }
    self.sizes = sizes
    try check()
  }

  /// Holds each number against the range that a decoder can have; beyond it sizes would overflow.
  private func check() throws {
    let counts = Self.counts
    try Self.check("latent_contract", "channels", contract.channels, counts)
    try Self.check("latent_contract", "scale", contract.scale, Self.scales)
    guard contract.low < contract.high else {
      throw FluxVAEError.recordDamaged(
        key: "latent_contract",
        reason: "low is \(contract.low) and high \(contract.high); expected low below high")
    }
    guard let tiles else { return }
    try Self.check("tiles", "halo", tiles.halo, 0...counts.upperBound)
    try Self.check("tiles", "stride", tiles.stride ?? 1, Self.scales)
    for (name, shape) in tiles.shapes {
      guard shape.count == 2 else {
        throw FluxVAEError.recordDamaged(
          key: "tiles", reason: "shapes.\(name) is \(shape); expected rows and columns")
      }
      for extent in shape { try Self.check("tiles", "shapes.\(name)", extent, counts) }
    }
  }

  private static func check(
    _ key: String, _ field: String, _ value: Int, _ range: ClosedRange<Int>
  ) throws {
    guard range.contains(value) else {
      throw FluxVAEError.recordDamaged(
        key: key,
        reason: """
          \(field) is \(value); expected \(range.lowerBound) to \(range.upperBound)
          """)
    }
  }

  private static func text(_ key: String, of metadata: [String: String]) throws -> String {
    guard let text = metadata[prefix + key] else {
      throw FluxVAEError.recordDamaged(key: key, reason: "it is missing")
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
      throw FluxVAEError.recordDamaged(key: key, reason: sentence(error))
    }
  }

  /// What is wrong with an entry's JSON, with the field.
  private static func sentence(_ error: any Error) -> String {
    switch error as? DecodingError {
    case .keyNotFound(let key, let context)?:
      "\(field(context.codingPath + [key])) is missing"
    case .typeMismatch(let type, let context)?, .valueNotFound(let type, let context)?:
      "\(field(context.codingPath)) is not of the type \(type)"
    case .dataCorrupted(let context)? where !context.codingPath.isEmpty:
      "\(field(context.codingPath)) has a value that does not fit: \(context.debugDescription)"
    default: "it is not JSON"
    }
  }

  private static func field(_ path: [any CodingKey]) -> String {
    path.isEmpty ? "it" : path.map(\.stringValue).joined(separator: ".")
  }
}
