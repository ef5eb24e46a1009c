/// How an image's size is constrained. A struct for the reason given at ``MLComputeUnits``.
public struct MLImageSizeConstraintType: RawRepresentable, Hashable, Sendable {
  public let rawValue: Int

  public init?(rawValue: Int) { self.rawValue = rawValue }
  private init(_ value: Int) { rawValue = value }

  public static let unspecified = MLImageSizeConstraintType(0)
  public static let enumerated = MLImageSizeConstraintType(2)
  public static let range = MLImageSizeConstraintType(3)
}
