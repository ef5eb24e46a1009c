/// One declared input or output of a model.
public struct Feature: Codable, Equatable, Sendable {
  /// What a feature is.
  public enum Kind: String, Codable, Sendable {
    case multiArray
    case image
    case other
  }

  /// Which shapes a feature takes.
  public enum Flexibility: String, Codable, Sendable {
    case fixed
    case enumerated
    case range
  }

  public let name: String
  public let kind: Kind
  @Nullable public var dtype: ScalarType?
  public let shape: [Int]
  public let flexibility: Flexibility
  public let shapes: [[Int]]
  /// Least and largest extent of each axis; nil as largest is unbounded.
  @Nullable public var ranges: [[Int?]]?

  /// Whether an array of this shape is declared; anything is where the model does not say.
  public func accepts(_ candidate: [Int]) -> Bool {
    switch flexibility {
    case .fixed: return shape.isEmpty || shape == candidate
    case .enumerated: return shapes.contains(candidate)
    case .range:
      guard let ranges, ranges.count == candidate.count else { return false }
      return zip(candidate, ranges).allSatisfy { extent, range in
        guard range.count == 2, let least = range[0] else { return false }
        return extent >= least && extent <= (range[1] ?? .max)
      }
    }
  }

  /// The declared shapes in words.
  var shapeText: String {
    switch flexibility {
    case .fixed: "\(shape)"
    case .enumerated: shapes.map { "\($0)" }.joined(separator: " or ")
    case .range:
      (ranges ?? []).map { range in
        range.map { $0.map(String.init) ?? "any" }.joined(separator: "...")
      }.joined(separator: " x ")
    }
  }
}
