import CoreML
import Foundation

/// A compiled model on disk: what it says of itself, and its functions.
struct ModelFile: Sendable {
  typealias Loader =
    @Sendable (URL, MLComputeUnits, _ function: String?) async throws -> sending MLModel

  let url: URL
  let computeUnits: MLComputeUnits
  /// Loads a function; tests put one here that counts.
  var loader: Loader = ModelFile.loaded

  /// The description of a function, or of the default one, made a value by `read`. Nothing is
  /// loaded.
  ///
  /// - Throws: `FluxVAEError`; `CancellationError`.
  func describe<Value: Sendable>(
    _ function: String?, _ read: (MLModelDescription) throws -> Value
  ) async throws -> Value {
    try await translating(function) {
      let asset = try MLModelAsset(url: url)
      guard let function else { return try read(await asset.modelDescription) }
      return try read(await asset.modelDescription(of: function))
    }
  }

  /// Loads a function, or the default one, and makes it a value by `wrap`.
  ///
  /// - Throws: `FluxVAEError`; `CancellationError`.
  func load<Value: Sendable>(
    _ function: String?, _ wrap: (MLModel) throws -> Value
  ) async throws -> Value {
    try await translating(function) {
      try wrap(await loader(url, computeUnits, function))
    }
  }

  static func loaded(
    _ url: URL, _ units: MLComputeUnits, _ function: String?
  ) async throws -> sending MLModel {
    let settings = MLModelConfiguration()
    settings.computeUnits = units
    settings.functionName = function
    return try await MLModel.load(contentsOf: url, configuration: settings)
  }

  /// Runs `body`, and makes Core ML's errors ours.
  private func translating<Value>(
    _ function: String?, _ body: () async throws -> Value
  ) async throws -> Value {
    guard FileManager.default.fileExists(atPath: url.path) else {
      throw FluxVAEError.modelNotFound(url)
    }
    try Task.checkCancellation()
    do {
      return try await body()
    } catch let error as FluxVAEError {
      throw error
    } catch {
      try Task.checkCancellation()  // Core ML has an error of its own for it
      throw FluxVAEError.loadFailed(url, function: function, reason: error.localizedDescription)
    }
  }
}

extension ArtifactRecord {
  /// The record in a model's description; nil when fluxvae did not make the model.
  ///
  /// - Throws: `FluxVAEError.recordFormat` or `.recordDamaged`.
  init?(_ description: MLModelDescription) throws {
    try self.init(metadata: description.metadata[.creatorDefinedKey] as? [String: String] ?? [:])
  }
}
