import Foundation

/// A loaded model.
open class MLModel: NSObject {
  public let modelDescription: MLModelDescription
  public let configuration: MLModelConfiguration

  init(description: MLModelDescription, configuration: MLModelConfiguration) {
    modelDescription = description
    self.configuration = configuration
  }

  public convenience init(contentsOf url: URL) throws {
    try self.init(contentsOf: url, configuration: MLModelConfiguration())
  }

  public convenience init(contentsOf url: URL, configuration: MLModelConfiguration) throws {
    throw MLModelError.unavailable("Loading, for now,")
  }

  public class func load(
    contentsOf url: URL, configuration: MLModelConfiguration = MLModelConfiguration(),
    completionHandler handler: @escaping (Result<MLModel, any Error>) -> Void
  ) {
    handler(Result { try MLModel(contentsOf: url, configuration: configuration) })
  }

  public class func load(
    contentsOf url: URL, configuration: MLModelConfiguration = MLModelConfiguration()
  ) async throws -> MLModel {
    try MLModel(contentsOf: url, configuration: configuration)
  }

  public class func load(
    asset: MLModelAsset, configuration: MLModelConfiguration
  ) async throws -> MLModel {
    try MLModel(contentsOf: asset.url, configuration: configuration)
  }

  public class func compileModel(at url: URL) async throws -> URL {
    throw MLModelError.unavailable("Compilation by Core ML")
  }

  public class func compileModel(
    at url: URL, completionHandler handler: @escaping (Result<URL, any Error>) -> Void
  ) {
    handler(.failure(MLModelError.unavailable("Compilation by Core ML")))
  }

  public class var availableComputeDevices: [MLComputeDevice] { MLComputeDevice.allComputeDevices }

  open func prediction(from input: any MLFeatureProvider) throws -> any MLFeatureProvider {
    try prediction(from: input, options: MLPredictionOptions())
  }

  open func prediction(
    from input: any MLFeatureProvider, options: MLPredictionOptions
  ) throws -> any MLFeatureProvider {
    throw MLModelError.unavailable("Prediction, for now,")
  }

  public func prediction(
    from input: any MLFeatureProvider, options: MLPredictionOptions = MLPredictionOptions()
  ) async throws -> any MLFeatureProvider {
    throw MLModelError.unavailable("Prediction, for now,")
  }
}
