/// Hints to Core ML's compiler on the device. Without effect on Linux.
public struct MLOptimizationHints: Equatable, Sendable {
  /// How often input shapes are expected to change.
  public enum ReshapeFrequency: Int, Hashable, Sendable {
    case frequent = 0
    case infrequent = 1
  }

  /// What to specialise the model for.
  public enum SpecializationStrategy: Int, Hashable, Sendable {
    case `default` = 0
    case fastPrediction = 1
  }

  public var reshapeFrequency: ReshapeFrequency = .frequent
  public var specializationStrategy: SpecializationStrategy = .default

  public init() {}
}
