import Foundation

extension MLModel {
  /// Loads a model and hands it to `handler` on a thread of its own choice.
  public class func load(
    contentsOf url: URL, configuration: MLModelConfiguration = MLModelConfiguration(),
    completionHandler handler: @escaping (Result<MLModel, any Error>) -> Void
  ) {
    // Called before this returns: a handler that is not Sendable cannot go to another thread.
    handler(Result { try MLModel(contentsOf: url, configuration: configuration) })
  }

  public class func load(
    contentsOf url: URL, configuration: MLModelConfiguration = MLModelConfiguration()
  ) async throws -> MLModel {
    let loaded = try await LoadedModel.load(url, function: configuration.functionName)
    return try MLModel(loaded, configuration: configuration)
  }

  public class func load(
    asset: MLModelAsset, configuration: MLModelConfiguration
  ) async throws -> MLModel {
    try await load(contentsOf: asset.url, configuration: configuration)
  }

  /// Throws: compiling is Apple's. On Linux `fluxvae compile` writes compiled models.
  public class func compileModel(at url: URL) async throws -> URL {
    throw notCompiled(url)
  }

  public class func compileModel(
    at url: URL, completionHandler handler: @escaping (Result<URL, any Error>) -> Void
  ) {
    handler(.failure(notCompiled(url)))
  }

  public class func compileModel(at modelURL: URL) throws -> URL {
    throw notCompiled(modelURL)
  }

  /// The CPU.
  public class var availableComputeDevices: [MLComputeDevice] { MLComputeDevice.allComputeDevices }

  private class func notCompiled(_ url: URL) -> MLModelError {
    MLModelError(
      .generic,
      "\(url.lastPathComponent) cannot be compiled by Core ML on Linux; use "
        + "'fluxvae compile' there.")
  }
}
