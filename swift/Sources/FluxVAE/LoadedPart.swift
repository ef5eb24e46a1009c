import CoreML

/// One function of a model that has several for one image, in memory: named arrays to one array.
///
/// `MLModel` is not declared as safe to share; see `LoadedFunction`.
struct LoadedPart: @unchecked Sendable {
  private let model: MLModel
  private let types: [String: MLMultiArrayDataType]
  private let output: TensorFeature

  /// - Throws: `FluxVAEError` when a feature is not a tensor.
  init(_ model: MLModel) throws {
    let description = model.modelDescription
    var types: [String: MLMultiArrayDataType] = [:]
    for (name, feature) in description.inputDescriptionsByName {
      types[name] = feature.multiArrayConstraint?.dataType
    }
    output = try TensorFeature(only: description.outputDescriptionsByName, side: "output")
    self.types = types
    self.model = model
  }

  /// - Throws: `FluxVAEError`; `CancellationError`.
  func run(_ inputs: [String: Planes]) async throws -> Planes {
    try Task.checkCancellation()
    let provider = try provider(inputs)
    let answer: any MLFeatureProvider
    do {
      answer = try await model.prediction(from: provider)
    } catch {
      try Task.checkCancellation()
      throw FluxVAEError.predictionFailed(reason: error.localizedDescription)
    }
    try Task.checkCancellation()
    return try planes(answer)
  }

  private func provider(_ inputs: [String: Planes]) throws -> MLDictionaryFeatureProvider {
    var values: [String: MLFeatureValue] = [:]
    for (name, planes) in inputs {
      guard let type = types[name] else {
        throw FluxVAEError.notADecoder(reason: "this model's function takes no \(name)")
      }
      values[name] = MLFeatureValue(
        multiArray: try MLMultiArray.filled(
          with: planes.values, shape: planes.shape, dataType: type, what: name))
    }
    return try MLDictionaryFeatureProvider(dictionary: values)
  }

  private func planes(_ answer: any MLFeatureProvider) throws -> Planes {
    guard let array = answer.featureValue(for: output.name)?.multiArrayValue else {
      throw FluxVAEError.unexpectedOutput(expected: output.shapes.first ?? [], found: nil)
    }
    return Planes(values: try array.floats(), shape: array.shape.map(\.intValue))
  }
}
