/// One operation of a compute plan; constants are not among them.
public struct PlannedOperation: Codable, Equatable, Sendable {
  public let index: Int
  public let `operator`: String
  @Nullable public var output: String?
  public let supported: [Device]
  @Nullable public var preferred: Device?
  @Nullable public var cost: Double?
}
