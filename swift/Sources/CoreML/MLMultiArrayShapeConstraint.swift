import Foundation

/// The shapes a multi-array feature may have.
open class MLMultiArrayShapeConstraint: NSObject {
  public let type: MLMultiArrayShapeConstraintType
  /// One NSRange for each dimension: its lowest size, and how many sizes are allowed.
  public let sizeRangeForDimension: [NSValue]
  public let enumeratedShapes: [[NSNumber]]

  init(type: MLMultiArrayShapeConstraintType, ranges: [NSRange], shapes: [[Int]]) {
    self.type = type
    sizeRangeForDimension = ranges.map { NSValue(range: $0) }
    enumeratedShapes = shapes.map { $0.map { NSNumber(value: $0) } }
  }
}
