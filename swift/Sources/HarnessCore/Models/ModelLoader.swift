@preconcurrency import CoreML
import Foundation

/// How a model gets into memory: by Core ML, unless a test puts something else in its place.
public struct ModelLoader: Sendable {
  public static let coreML = ModelLoader { try MLModel(contentsOf: $0, configuration: $1) }

  let load: @Sendable (URL, MLModelConfiguration) throws -> MLModel

  public init(_ load: @escaping @Sendable (URL, MLModelConfiguration) throws -> MLModel) {
    self.load = load
  }
}
