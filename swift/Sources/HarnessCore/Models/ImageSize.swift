/// Height and width of an image in pixels.
public struct ImageSize: Equatable, Hashable, Sendable, CustomStringConvertible {
  public let height: Int
  public let width: Int

  public init(height: Int, width: Int) {
    self.height = height
    self.width = width
  }

  /// `768` or `768x1344`, height first; nil for anything else.
  public init?(_ text: String) {
    let sides = text.split(separator: "x", omittingEmptySubsequences: false)
    let digits = sides.allSatisfy { (1...6).contains($0.count) && $0.allSatisfy(\.isASCIIDigit) }
    let numbers = sides.compactMap { Int($0) }
    guard digits, numbers.count == sides.count, (1...2).contains(numbers.count),
      let height = numbers.first, let width = numbers.last, height > 0, width > 0
    else { return nil }
    self.init(height: height, width: width)
  }

  public var description: String { "\(height)x\(width)" }

  /// Name of this size's function in a multifunction model of fluxvae: `hw768`, `h768w1344`.
  var function: String { height == width ? "hw\(height)" : "h\(height)w\(width)" }
}

extension Character {
  fileprivate var isASCIIDigit: Bool { ("0"..."9").contains(self) }
}
