import CoreML

/// One multi-array input or output, as plain values.
struct TensorFeature: Equatable, Sendable {
  let name: String
  /// Every shape the feature may have, the default one first; empty when only a run tells.
  let shapes: [[Int]]
}

extension TensorFeature {
  /// The only feature of its side of a model.
  ///
  /// - Throws: `FluxVAEError.notADecoder` when there are others, or it is no tensor.
  init(only features: [String: MLFeatureDescription], side: String) throws {
    guard let feature = features.values.first, features.count == 1 else {
      let names = features.keys.sorted().joined(separator: ", ")
      throw FluxVAEError.notADecoder(
        reason: "this model has \(features.count) \(side)s: \(names)")
    }
    guard let constraint = feature.multiArrayConstraint else {
      throw FluxVAEError.notADecoder(
        reason: "this model's \(side) \(feature.name) is no tensor (kind \(feature.type.rawValue))")
    }
    self.init(name: feature.name, shapes: constraint.allShapes)
  }
}

extension MLMultiArrayConstraint {
  /// The default shape, then the others that are listed. Ranges are not listed.
  fileprivate var allShapes: [[Int]] {
    let first = shape.map(\.intValue)
    guard !first.isEmpty else { return [] }
    guard shapeConstraint.type == .enumerated else { return [first] }
    let listed = shapeConstraint.enumeratedShapes.map { $0.map(\.intValue) }
    return [first] + listed.filter { $0 != first }
  }
}
