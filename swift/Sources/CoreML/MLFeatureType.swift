/// The kinds of value a feature can hold. A struct for the reason given at ``MLComputeUnits``.
public struct MLFeatureType: RawRepresentable, Hashable, Sendable {
  public let rawValue: Int

  public init?(rawValue: Int) { self.rawValue = rawValue }
  private init(_ value: Int) { rawValue = value }

  public static let invalid = MLFeatureType(0)
  public static let int64 = MLFeatureType(1)
  public static let double = MLFeatureType(2)
  public static let string = MLFeatureType(3)
  public static let image = MLFeatureType(4)
  public static let multiArray = MLFeatureType(5)
  public static let dictionary = MLFeatureType(6)
  public static let sequence = MLFeatureType(7)
}
