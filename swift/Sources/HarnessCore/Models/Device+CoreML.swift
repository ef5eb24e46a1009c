import CoreML

extension Device {
  init(_ device: MLComputeDevice) {
    switch device {
    case .cpu: self = .cpu
    case .gpu: self = .gpu
    case .neuralEngine: self = .neuralEngine
    default: self = .other
    }
  }
}
