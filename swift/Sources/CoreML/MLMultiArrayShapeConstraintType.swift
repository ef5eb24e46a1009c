/// How a multi-array's shape is constrained. A struct for the reason given at ``MLComputeUnits``.
public struct MLMultiArrayShapeConstraintType: RawRepresentable, Hashable, Sendable {
  public let rawValue: Int

  public init?(rawValue: Int) { self.rawValue = rawValue }
  private init(_ value: Int) { rawValue = value }

  public static let unspecified = MLMultiArrayShapeConstraintType(1)
  public static let enumerated = MLMultiArrayShapeConstraintType(2)
  public static let range = MLMultiArrayShapeConstraintType(3)
}
