/// Height and width of an image in pixels.
public struct ImageSize: Hashable, Sendable {
  public let height: Int
  public let width: Int

  public init(height: Int, width: Int) {
    self.height = height
    self.width = width
  }

  /// A square.
  public init(_ side: Int) {
    self.init(height: side, width: side)
  }

  /// `768` or `768x1344` (height x width), as fluxvae's recipes spell sizes.
  init?(recipe text: String) {
    let parts = text.split(separator: "x", omittingEmptySubsequences: false)
    let sides = parts.compactMap { Int($0) }.filter(ArtifactRecord.sides.contains)
    guard let first = sides.first, sides.count == parts.count, sides.count <= 2 else { return nil }
    self.init(height: first, width: sides.last ?? first)
  }

  /// Name of this size's function in a multifunction model: `hw768`, `h768w1344`.
  var function: String {
    height == width ? "hw\(height)" : "h\(height)w\(width)"
  }
}

extension ImageSize: CustomStringConvertible {
  /// Height x width.
  public var description: String { "\(height)x\(width)" }
}
