import Foundation

/// The structure of a model as Core ML sees it. None is ever made on Linux: loading one throws.
///
/// The extra case is explained at ``MLComputeDevice``.
public enum MLModelStructure: Sendable {
  case neuralNetwork(NeuralNetwork)
  case program(Program)
  case pipeline(Pipeline)
  case unsupported
  case _notListed

  public static func load(contentsOf url: URL) async throws -> MLModelStructure {
    throw MLModelError.unavailable("The structure of \(url.lastPathComponent)")
  }

  public static func load(asset: MLModelAsset) async throws -> MLModelStructure {
    throw MLModelError.unavailable("The structure of the model")
  }

  /// A neural network.
  public struct NeuralNetwork: Sendable {
    public let layers: [Layer]

    /// A layer.
    public struct Layer: Sendable {
      public let name: String
      public let type: String
      public let inputNames: [String]
      public let outputNames: [String]
    }
  }

  /// Models one after another.
  public struct Pipeline: Sendable {
    public let subModelNames: [String]
    public let subModels: [MLModelStructure]
  }
}

extension MLModelError {
  /// The answer for what only Apple's framework can know.
  static func unavailable(_ what: String) -> MLModelError {
    MLModelError(.generic, "\(what) is not available on Linux; only Apple's Core ML knows it.")
  }
}
