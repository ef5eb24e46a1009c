@preconcurrency import CoreML
import Foundation

/// A model in memory, one of its functions, on one set of compute units.
struct LoadedModel {
  let model: MLModel
  let interface: Interface
  let function: String?
  let units: ComputeUnits
  /// How long loading took.
  let milliseconds: Double

  /// - Throws: `ModelFault.missing` or `.load` with Core ML's reason.
  init(url: URL, function: String?, units: ComputeUnits) throws(ModelFault) {
    guard FileManager.default.fileExists(atPath: url.path) else { throw .missing(path: url.path) }
    let configuration = MLModelConfiguration()
    configuration.computeUnits = units.coreML
    configuration.functionName = function
    let clock = ContinuousClock()
    let start = clock.now
    do {
      model = try MLModel(contentsOf: url, configuration: configuration)
    } catch {
      throw .load(path: url.lastPathComponent, reason: error.localizedDescription)
    }
    milliseconds = (clock.now - start).milliseconds
    interface = Interface(model.modelDescription)
    self.function = function
    self.units = units
  }

  /// Inputs as Core ML takes them, each converted to the declared scalar type.
  func provider(_ tensors: [String: Tensor]) throws -> MLDictionaryFeatureProvider {
    var values: [String: MLFeatureValue] = [:]
    for (name, tensor) in tensors {
      let dtype = interface.input(named: name)?.dtype ?? tensor.dtype
      values[name] = MLFeatureValue(multiArray: try tensor.converted(to: dtype).multiArray())
    }
    return try MLDictionaryFeatureProvider(dictionary: values)
  }

  /// One prediction, and how long it took: from a provider that is ready to an answer that is,
  /// with no copy of ours in between.
  func timedPrediction(
    _ input: MLDictionaryFeatureProvider
  ) throws(ModelFault) -> (output: any MLFeatureProvider, milliseconds: Double) {
    let clock = ContinuousClock()
    let start = clock.now
    do {
      let output = try model.prediction(from: input)
      return (output, (clock.now - start).milliseconds)
    } catch {
      throw .prediction(reason: error.localizedDescription)
    }
  }

  /// One prediction, all declared outputs copied out in the order of their names.
  func outputs(_ input: MLDictionaryFeatureProvider) throws -> [Tensor] {
    try drained {
      let answer = try timedPrediction(input).output
      return try interface.outputs.map { try tensor($0, in: answer) }
    }
  }

  /// One output, copied out.
  func output(_ name: String, for input: MLDictionaryFeatureProvider) throws -> Tensor {
    try drained {
      guard let feature = interface.output(named: name) else {
        throw ModelFault.output(name: name)
      }
      return try tensor(feature, in: try timedPrediction(input).output)
    }
  }

  private func tensor(_ feature: Feature, in answer: any MLFeatureProvider) throws -> Tensor {
    if feature.kind == .image { throw ModelFault.image(feature: feature.name) }
    guard let array = answer.featureValue(for: feature.name)?.multiArrayValue else {
      throw ModelFault.output(name: feature.name)
    }
    return try Tensor(array, name: feature.name)
  }
}
