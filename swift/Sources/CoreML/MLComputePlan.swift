import Foundation

/// Where Core ML means to run each operation. None is ever made on Linux: loading one throws.
public class MLComputePlan {
  public final let modelStructure: MLModelStructure

  /// The devices for one operation.
  public struct DeviceUsage: Sendable {
    public let supported: [MLComputeDevice]
    public let preferred: MLComputeDevice
  }

  /// The share of one operation in the work of the whole model.
  public struct Cost: Sendable {
    public let weight: Double
  }

  // Nothing here can plan, so there is nobody to call this.
  private init(modelStructure: MLModelStructure) { self.modelStructure = modelStructure }

  public static func load(
    contentsOf url: URL, configuration: MLModelConfiguration
  ) async throws -> MLComputePlan {
    throw MLModelError.unavailable("The compute plan of \(url.lastPathComponent)")
  }

  public static func load(
    asset: MLModelAsset, configuration: MLModelConfiguration
  ) async throws -> MLComputePlan {
    throw MLModelError.unavailable("The compute plan of the model")
  }

  public func estimatedCost(of operation: MLModelStructure.Program.Operation) -> Cost? { nil }

  public func deviceUsage(for layer: MLModelStructure.NeuralNetwork.Layer) -> DeviceUsage? { nil }

  public func deviceUsage(for operation: MLModelStructure.Program.Operation) -> DeviceUsage? { nil }
}

@available(*, unavailable)
extension MLComputePlan: Sendable {}
