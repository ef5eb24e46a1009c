import Foundation

/// A loaded model, which `python -m fluxvae.mil.serve` runs on the CPU.
///
/// Not Sendable, as in Apple's SDKs that were looked at.
open class MLModel: NSObject {
  public let modelDescription: MLModelDescription
  public let configuration: MLModelConfiguration

  let loaded: LoadedModel
  private let rowAlignment: Int?

  init(
    _ loaded: LoadedModel, configuration: MLModelConfiguration,
    environment: [String: String] = ProcessInfo.processInfo.environment
  ) throws {
    self.loaded = loaded
    self.configuration = configuration.duplicate()
    modelDescription = try MLModelDescription(loaded.description)
    rowAlignment = try EngineOutputs.requestedRowAlignment(environment)
  }

  public convenience init(contentsOf url: URL) throws {
    try self.init(contentsOf: url, configuration: MLModelConfiguration())
  }

  public convenience init(contentsOf url: URL, configuration: MLModelConfiguration) throws {
    try self.init(
      LoadedModel.load(url, function: configuration.functionName), configuration: configuration)
  }

  /// Runs the model, and waits for it.
  open func prediction(from input: any MLFeatureProvider) throws -> any MLFeatureProvider {
    try prediction(from: input, options: MLPredictionOptions())
  }

  /// Runs the model, and waits for it.
  open func prediction(
    from input: any MLFeatureProvider, options: MLPredictionOptions
  ) throws -> any MLFeatureProvider {
    let (reply, payload) = try loaded.predict(EngineInputs(from: input, for: modelDescription))
    return try outputs(reply, payload, options)
  }

  /// Runs the model. Several predictions may be under way; they are computed one after another.
  ///
  /// A task that was cancelled before its turn throws `MLModelError.predictionCancelled`.
  public func prediction(
    from input: any MLFeatureProvider, options: MLPredictionOptions = MLPredictionOptions()
  ) async throws -> any MLFeatureProvider {
    guard !Task.isCancelled else {
      throw MLModelError(.predictionCancelled, "The prediction was cancelled.")
    }
    let inputs = try EngineInputs(from: input, for: modelDescription)
    let (reply, payload) = try await loaded.predict(inputs)
    return try outputs(reply, payload, options)
  }

  private func outputs(
    _ reply: EngineReply, _ payload: EnginePayload, _ options: MLPredictionOptions
  ) throws -> any MLFeatureProvider {
    let maker = EngineOutputs(rowAlignment: rowAlignment, backings: options.outputBackings)
    return try MLDictionaryFeatureProvider(dictionary: maker.values(reply, payload))
  }
}
