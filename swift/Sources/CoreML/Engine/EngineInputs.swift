import Foundation

/// What a prediction sends: the inputs in first-major order, one after another.
struct EngineInputs: Sendable {
  let arrays: [EngineArray]
  let payload: Data

  /// Collects and checks what the model takes.
  ///
  /// Throws `MLModelError.featureType` for a missing, unfit or wrongly shaped value, in the words
  /// of Core ML as users have reported them. Further features are ignored, as Core ML does.
  init(from provider: any MLFeatureProvider, for description: MLModelDescription) throws {
    var arrays: [EngineArray] = []
    var payload = Data()
    for (name, feature) in description.inputDescriptionsByName.sorted(by: { $0.key < $1.key }) {
      let array = try Self.array(provider.featureValue(for: name), for: feature)
      arrays.append(
        EngineArray(name: name, dtype: array.dataType.engineName, shape: array.layout.shape))
      Self.append(array, to: &payload)
    }
    self.arrays = arrays
    self.payload = payload
  }

  private static func array(
    _ value: MLFeatureValue?, for feature: MLFeatureDescription
  ) throws -> MLMultiArray {
    let name = feature.name
    guard let value, !value.isUndefined else {
      throw MLModelError(.featureType, "Feature \(name) is required but not specified.")
    }
    guard let constraint = feature.multiArrayConstraint else {
      throw MLModelError(
        .featureType,
        "The model expects input feature \(name) to be an image, and Linux has no "
          + "pixel buffers; use a model with multi-array inputs.")
    }
    guard let array = value.multiArrayValue else {
      throw MLModelError(
        .featureType,
        "The model expects input feature \(name) to be an array, but the input is "
          + "of type \(value.type.rawValue).")
    }
    if let violation = constraint.violation(of: array.layout.shape) {
      let shape = array.layout.shape.map(String.init).joined(separator: " × ")
      throw MLModelError(
        .featureType,
        "For input feature '\(name)', the provided shape (\(shape)) is not "
          + "compatible with the model's feature description.",
        underlying: MLModelError(.generic, violation))
    }
    return array
  }

  private static func append(_ array: MLMultiArray, to payload: inout Data) {
    let start = payload.count
    let size = array.count * array.dataType.byteCount
    payload.append(Data(count: size))
    payload.withUnsafeMutableBytes { bytes in
      guard let base = bytes.baseAddress, size > 0 else { return }
      copyElements(
        from: array.dataPointer, array.layout, array.dataType,
        to: base + start, ArrayLayout(dense: array.layout.shape), array.dataType)
    }
  }
}
