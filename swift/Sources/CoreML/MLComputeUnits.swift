/// The compute units a model may use. On Linux every value runs on the CPU.
///
/// Apple's is a C enum. A struct of the same spelling keeps `switch` with a plain `default` free of
/// warnings here as on Apple's platforms, where the enum is not frozen.
public struct MLComputeUnits: RawRepresentable, Hashable, Sendable {
  public let rawValue: Int

  public init?(rawValue: Int) { self.rawValue = rawValue }
  private init(_ value: Int) { rawValue = value }

  public static let cpuOnly = MLComputeUnits(0)
  public static let cpuAndGPU = MLComputeUnits(1)
  public static let all = MLComputeUnits(2)
  public static let cpuAndNeuralEngine = MLComputeUnits(3)
}
