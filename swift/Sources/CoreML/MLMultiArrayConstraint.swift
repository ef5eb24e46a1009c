import Foundation

/// Element type and shape of a multi-array feature.
open class MLMultiArrayConstraint: NSObject {
  /// The required or default shape; empty when the model does not say.
  public let shape: [NSNumber]
  public let dataType: MLMultiArrayDataType
  public let shapeConstraint: MLMultiArrayShapeConstraint

  init(
    shape: [Int], dataType: MLMultiArrayDataType, shapeConstraint: MLMultiArrayShapeConstraint
  ) {
    self.shape = shape.map { NSNumber(value: $0) }
    self.dataType = dataType
    self.shapeConstraint = shapeConstraint
  }

  /// What is wrong with a shape, in Core ML's words, or nil when it fits.
  ///
  /// The sentences for one shape and for enumerated shapes are Apple's, as users have reported
  /// them; no report of the one for ranges was found, so it is modelled on the others.
  func violation(of found: [Int]) -> String? {
    let text = found.shapeText
    let allowed = shapeConstraint.enumeratedShapes.map { $0.map(\.intValue) }
    if allowed.count > 1 {
      return allowed.contains(found)
        ? nil : "Shape \(text) was not in enumerated set of allowed shapes"
    }
    if shapeConstraint.type == .range {
      let ranges = shapeConstraint.sizeRangeForDimension.map(\.rangeValue)
      let fits =
        found.count == ranges.count
        && zip(found, ranges).allSatisfy {
          $0 >= $1.location && $0 - $1.location < $1.length
        }
      return fits ? nil : "Shape \(text) was not in range of allowed shapes"
    }
    let wanted = shape.map(\.intValue)
    if wanted.isEmpty || wanted == found { return nil }
    return "MultiArray shape \(text) does not match the shape \(wanted.shapeText) "
      + "specified in the model description"
  }
}

extension [Int] {
  /// A shape as Core ML's messages write it.
  var shapeText: String { "(" + map(String.init).joined(separator: " x ") + ")" }
}
