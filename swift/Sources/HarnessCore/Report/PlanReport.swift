/// `MLComputePlan`'s answer.
public struct PlanReport: Codable, Equatable, Sendable {
  /// The plan of one function.
  public struct Result: Codable, Equatable, Sendable {
    public let computeUnits: ComputeUnits
    public let function: String
    public let operations: Int
    public let constants: Int
    public let devices: [String: Int]
    public let types: [OperatorCount]
    public let costByDevice: [String: Double]
    public let leftNeuralEngine: [Int]
    public let ops: [PlannedOperation]
  }

  /// Operations of one type.
  public struct OperatorCount: Codable, Equatable, Sendable {
    public let `operator`: String
    public let count: Int
    public let devices: [String: Int]
  }

  public let available: Bool
  @Nullable public var reason: String?
  public let results: [Result]
}
