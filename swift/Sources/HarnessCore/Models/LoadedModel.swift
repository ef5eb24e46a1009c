@preconcurrency import CoreML
import Foundation

/// A model in memory, one of its functions, on one set of compute units.
///
/// Half a decoder brings its other half, which lies beside it: the two are run as one model.
struct LoadedModel {
  /// Takes the input.
  let model: MLModel
  /// Takes what `model` gives; nil for a whole decoder.
  let next: MLModel?
  /// Inputs of the first model, outputs of the last.
  let interface: Interface
  let function: String?
  let units: ComputeUnits
  /// How long loading took.
  let milliseconds: Double

  /// - Throws: `ModelFault.missing` or `.load` with Core ML's reason; for half a decoder
  ///   `.otherPart` or `.foreignPart`; `.tiled`.
  init(
    url: URL, function: String?, units: ComputeUnits, loader: ModelLoader
  ) throws(ModelFault) {
    let clock = ContinuousClock()
    let start = clock.now
    func load(_ url: URL) throws(ModelFault) -> MLModel {
      try Self.load(url, function: function, units: units, loader: loader)
    }
    let named = try load(url)
    let own = Interface(named.modelDescription)
    let record = try ArtifactRecord(metadata: own.metadata)
    if record?.tiled == true { throw .tiled(path: url.lastPathComponent) }
    if let part = record?.part {
      let other = try Self.otherPart(of: part, at: url, load: load)
      (model, next) = part.number == 1 ? (named, other) : (other, named)
      interface = try Self.joined(model, other: part.number == 1 ? other : named)
    } else {
      (model, next, interface) = (named, nil, own)
    }
    milliseconds = (clock.now - start).milliseconds
    self.function = function
    self.units = units
  }

  private static func load(
    _ url: URL, function: String?, units: ComputeUnits, loader: ModelLoader
  ) throws(ModelFault) -> MLModel {
    guard FileManager.default.fileExists(atPath: url.path) else { throw .missing(path: url.path) }
    let configuration = MLModelConfiguration()
    configuration.computeUnits = units.coreML
    configuration.functionName = function
    do {
      // Drained, or a pool of the whole run would keep models that nothing else holds.
      return try drained { try loader.load(url, configuration) }
    } catch {
      throw .load(path: url.lastPathComponent, reason: error.localizedDescription)
    }
  }

  private static func otherPart(
    of part: DecoderPart, at url: URL, load: (URL) throws(ModelFault) -> MLModel
  ) throws(ModelFault) -> MLModel {
    let place = part.otherURL(beside: url)
    guard FileManager.default.fileExists(atPath: place.path) else {
      throw .otherPart(
        path: url.lastPathComponent, number: part.number, expected: place.lastPathComponent)
    }
    let other = try load(place)
    let record = try ArtifactRecord(metadata: Interface(other.modelDescription).metadata)
    guard part.belongs(with: record?.part) else {
      throw .foreignPart(path: url.lastPathComponent, other: place.lastPathComponent)
    }
    return other
  }

  private static func joined(_ first: MLModel, other: MLModel) throws(ModelFault) -> Interface {
    let (before, after) = (Interface(first.modelDescription), Interface(other.modelDescription))
    for feature in after.inputs where before.output(named: feature.name) == nil {
      throw .seam(name: feature.name)
    }
    return Interface(inputs: before.inputs, outputs: after.outputs, metadata: before.metadata)
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
  /// with no copy of ours in between. Two halves are one prediction.
  func timedPrediction(
    _ input: MLDictionaryFeatureProvider
  ) throws(ModelFault) -> (output: any MLFeatureProvider, milliseconds: Double) {
    let clock = ContinuousClock()
    let start = clock.now
    do {
      var output = try model.prediction(from: input)
      if let next { output = try next.prediction(from: output) }
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
