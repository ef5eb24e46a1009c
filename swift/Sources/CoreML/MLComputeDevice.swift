import Foundation

/// A device that can run machine-learning computations. Linux has one: the CPU.
///
/// Apple's enum is not frozen. The extra case, never made, keeps a `switch` with a plain `default`
/// free of warnings here as it is there.
public enum MLComputeDevice: Hashable, CustomStringConvertible, Sendable {
  case cpu(MLCPUComputeDevice)
  case gpu(MLGPUComputeDevice)
  case neuralEngine(MLNeuralEngineComputeDevice)
  case _notListed

  public static var allComputeDevices: [MLComputeDevice] { [.cpu(.only)] }

  public var description: String {
    switch self {
    case .cpu: "CPU"
    case .gpu: "GPU"
    case .neuralEngine: "Neural Engine"
    case ._notListed: "unknown device"
    }
  }
}

/// The CPU. There is one object, since there is one device.
public final class MLCPUComputeDevice: NSObject, Sendable {
  static let only = MLCPUComputeDevice()

  private override init() {}
}

/// A GPU. None is ever made on Linux; `metalDevice` is not declared.
public final class MLGPUComputeDevice: NSObject, Sendable {
  private override init() {}
}

/// The Neural Engine. None is ever made on Linux.
public final class MLNeuralEngineComputeDevice: NSObject, Sendable {
  public let totalCoreCount: Int

  private init(totalCoreCount: Int) { self.totalCoreCount = totalCoreCount }
}
