import CoreML

/// One function of a model in memory: named arrays to one array.
///
/// `MLModel` is not declared as safe to share. It is here because nothing else holds this one: the
/// decoder lets one prediction at a time reach it (see `TurnGate`).
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

  /// - Parameters:
  ///   - shape: The shape that the array must have; nil for any.
  ///   - what: What the inputs are, for messages; nil for their names.
  /// - Throws: `FluxVAEError`; `CancellationError`.
  func run(
    _ inputs: [String: Planes], giving shape: [Int]? = nil, what: String? = nil
  ) async throws -> Planes {
    try Task.checkCancellation()
    let provider = try provider(inputs, what)
    let answer: any MLFeatureProvider
    do {
      answer = try await model.prediction(from: provider)
    } catch {
      try Task.checkCancellation()  // Core ML has an error of its own for it
      throw FluxVAEError.predictionFailed(reason: error.localizedDescription)
    }
    try Task.checkCancellation()
    return try planes(answer, shape)
  }

  private func provider(
    _ inputs: [String: Planes], _ what: String?
  ) throws -> MLDictionaryFeatureProvider {
    var values: [String: MLFeatureValue] = [:]
    for (name, planes) in inputs {
      guard let type = types[name] else {
        throw FluxVAEError.notADecoder(reason: "this model's function takes no \(name)")
      }
      values[name] = MLFeatureValue(
        multiArray: try MLMultiArray.filled(
          with: planes.values, shape: planes.shape, dataType: type, what: what ?? name))
    }
    return try MLDictionaryFeatureProvider(dictionary: values)
  }

  private func planes(_ answer: any MLFeatureProvider, _ expected: [Int]?) throws -> Planes {
    let array = answer.featureValue(for: output.name)?.multiArrayValue
    let found = array?.shape.map(\.intValue)
    guard let array, let found, found == expected ?? found else {
      throw FluxVAEError.unexpectedOutput(
        expected: expected ?? output.shapes.first ?? [], found: found)
    }
    return Planes(values: try array.floats(), shape: found)
  }
}
