import CoreML

extension ComputeUnits {
  /// Core ML's value.
  var coreML: MLComputeUnits {
    switch self {
    case .cpuOnly: .cpuOnly
    case .cpuAndGPU: .cpuAndGPU
    case .cpuAndNeuralEngine: .cpuAndNeuralEngine
    case .all: .all
    }
  }
}
