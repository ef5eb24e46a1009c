import CoreML
import Foundation

extension Interface {
  /// What Core ML says about a loaded model.
  init(_ description: MLModelDescription) {
    inputs = Self.features(description.inputDescriptionsByName)
    outputs = Self.features(description.outputDescriptionsByName)
    metadata = description.metadata[.creatorDefinedKey] as? [String: String] ?? [:]
  }

  private static func features(_ byName: [String: MLFeatureDescription]) -> [Feature] {
    byName.values.sorted { $0.name < $1.name }.map { Feature($0) }
  }
}

extension Feature {
  init(_ description: MLFeatureDescription) {
    guard let constraint = description.multiArrayConstraint else {
      self.init(
        name: description.name, kind: description.type == .image ? .image : .other, dtype: nil,
        shape: [], flexibility: .fixed, shapes: [], ranges: nil)
      return
    }
    let shape = constraint.shape.map(\.intValue)
    var flexibility = Flexibility.fixed
    var shapes = shape.isEmpty ? [] : [shape]
    var ranges: [[Int?]]?
    let allowed = constraint.shapeConstraint
    if allowed.type == .enumerated {
      flexibility = .enumerated
      shapes = allowed.enumeratedShapes.map { $0.map(\.intValue) }
    } else if allowed.type == .range {
      flexibility = .range
      shapes = []
      ranges = allowed.sizeRangeForDimension.map { Self.range($0.rangeValue) }
    }
    self.init(
      name: description.name, kind: .multiArray, dtype: ScalarType(constraint.dataType),
      shape: shape, flexibility: flexibility, shapes: shapes, ranges: ranges)
  }

  /// Core ML counts the sizes that are allowed, from the least one on; a count that reaches beyond
  /// 32 bits stands for no bound. Not checked on a Mac.
  private static func range(_ range: NSRange) -> [Int?] {
    let unbounded = range.length > Int(Int32.max) - range.location
    return [range.location, unbounded ? nil : range.location + max(range.length, 1) - 1]
  }
}
