/// Bench on one set of compute units; all times in milliseconds.
public struct BenchRun: Codable, Equatable, Sendable {
  /// Loading the model twice in this process.
  public struct Load: Codable, Equatable, Sendable {
    public let firstMs: Double
    public let secondMs: Double
  }

  public let computeUnits: ComputeUnits
  public let load: Load
  public let firstCalls: FirstCalls
  public let samplesMs: [Double]
  public let latency: Latency
  @Nullable public var peakMemoryBytes: Int?
}
