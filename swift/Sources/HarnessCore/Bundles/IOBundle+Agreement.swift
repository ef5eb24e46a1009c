internal import FluxVAESupport
import Foundation

extension IOBundle {
  /// Which limit a model is judged by, and what could not be checked.
  public struct Agreement: Equatable, Sendable {
    public let precision: Precision
    public let limit: Limit
    /// The range of the reference, which PSNR is of.
    public let peak: Double
    public let notes: [String]
  }

  /// Holds the bundle against what a model says of itself and declares.
  ///
  /// The features' dtype may differ from the bundle's: a float32 input is rounded for a float16
  /// model, and outputs are compared in double precision.
  ///
  /// - Throws: `BundleError` for another layout, variant, checkpoint, latent space, feature or
  ///   shape; `ModelFault` for a feature that is no array, or damaged metadata.
  public func agreement(with interface: Interface) throws -> Agreement {
    let (precision, notes) = try origin(of: interface.metadata)
    let record = try ArtifactRecord(metadata: interface.metadata)
    let peak = record?.encodes == true ? output.range : record?.peak ?? 1
    try check(manifest.input, role: "input", in: interface.inputs)
    try check(manifest.output, role: "output", in: interface.outputs)
    let taken = interface.input(named: manifest.input.name)?.dtype
    let halves = precision == .float16 || taken == .float16
    return try judged(by: precision, peak: peak, notes: notes + (halves ? overflow : []))
  }

  /// What becomes of an input that float16 cannot hold.
  private var overflow: [String] {
    let beyond = input.doubles().filter { Half.pattern(Float($0)) & 0x7FFF == 0x7C00 }
    guard let largest = beyond.max(by: { abs($0) < abs($1) }) else { return [] }
    let value = String(format: "%g", largest)
    return [
      "The input holds \(value), and float16's largest value is \(Half.largest): it becomes "
        + "infinity in this model (values: \(beyond.count))."
    ]
  }

  /// Holds the bundle against the model's metadata, which all functions of a model share.
  ///
  /// - Returns: the model's compute precision, and what could not be checked.
  @discardableResult
  func origin(of metadata: [String: String]) throws -> (precision: Precision?, notes: [String]) {
    guard let record = try ArtifactRecord(metadata: metadata) else {
      let note = "The model has no fluxvae metadata: weights and latent space were not checked."
      return (nil, [note])
    }
    var notes: [String] = []
    try compare(record.variant, manifest.variant, "variant", &notes) {
      .variant(bundle: $1, model: $0)
    }
    try compare(record.layout, manifest.input.layout, "layout", &notes) {
      .layout(bundle: $1, model: $0)
    }
    try compare(record.latentSpace, manifest.latentSpace, "latent space", &notes) {
      .latentSpace(bundle: $1, model: $0)
    }
    try compare(record.weightsDigest, manifest.weights.digest, "weight digest", &notes) {
      .weights(bundle: $1, model: $0)
    }
    return (record.precision, notes)
  }

  private func check(_ array: Manifest.Array, role: String, in features: [Feature]) throws {
    guard let feature = features.first(where: { $0.name == array.name }) else {
      throw BundleError.feature(name: array.name, role: role, declared: features.map(\.name))
    }
    if feature.kind == .image { throw ModelFault.image(feature: feature.name) }
    guard feature.kind == .multiArray, feature.dtype != nil, feature.dtype != .int32 else {
      throw ModelFault.unreadable(feature: feature.name)
    }
    guard feature.accepts(array.shape) else {
      throw BundleError.shape(
        name: array.name, found: array.shape, declared: feature.shapeText)
    }
  }

  private func compare<Value: Equatable>(
    _ model: Value?, _ bundle: Value, _ what: String, _ notes: inout [String],
    _ fault: (Value, Value) -> BundleError
  ) throws(BundleError) {
    guard let model else {
      notes.append("The model's metadata has no \(what): it was not checked.")
      return
    }
    guard model == bundle else { throw fault(model, bundle) }
  }

  private func judged(
    by precision: Precision?, peak: Double, notes: [String]
  ) throws(BundleError) -> Agreement {
    let taken = precision ?? .float16
    guard let limit = manifest.limits[taken.rawValue] else { throw .noLimit(precision: taken) }
    let guess = "The model does not state its compute precision: judged by float16's limit."
    return Agreement(
      precision: taken, limit: limit, peak: peak,
      notes: notes + (precision == nil ? [guess] : []))
  }
}

extension Tensor {
  /// From the least value to the largest; 1 where all are equal.
  fileprivate var range: Double {
    let values = doubles()
    guard let least = values.min(), let most = values.max(), most > least else { return 1 }
    return most - least
  }
}
