/// Does the model give the same bits each time, and everywhere.
public struct DriftReport: Codable, Equatable, Sendable {
  /// Outputs held against the first output of the same compute units.
  public struct Run: Codable, Equatable, Sendable {
    public let computeUnits: ComputeUnits
    public let bitEqual: Bool
    public let differing: Int
    @Nullable public var firstDiffering: Int?
    @Nullable public var maxAbs: Double?
    public let digest: String
  }

  /// The first output of other compute units against cpuOnly's.
  public struct Comparison: Codable, Equatable, Sendable {
    public let computeUnits: ComputeUnits
    public let bitEqual: Bool
    public let metrics: Metrics
  }

  public let repeats: Int
  public let runs: [Run]
  public let againstCpu: [Comparison]
}
