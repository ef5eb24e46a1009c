/// Sets of devices that Core ML may use, by Apple's names.
public enum ComputeUnits: String, Codable, Sendable, CaseIterable {
  case cpuOnly
  case cpuAndGPU
  case cpuAndNeuralEngine
  case all

  /// Whether the Neural Engine is among them.
  var allowNeuralEngine: Bool { self == .all || self == .cpuAndNeuralEngine }
}
