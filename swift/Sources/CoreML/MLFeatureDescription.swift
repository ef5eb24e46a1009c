import Foundation

/// Name, kind and constraints of one input or output.
open class MLFeatureDescription: NSObject {
  public let name: String
  public let type: MLFeatureType
  public let isOptional: Bool
  public let multiArrayConstraint: MLMultiArrayConstraint?
  public let imageConstraint: MLImageConstraint?

  init(
    name: String, type: MLFeatureType, isOptional: Bool,
    multiArray: MLMultiArrayConstraint?, image: MLImageConstraint?
  ) {
    self.name = name
    self.type = type
    self.isOptional = isOptional
    multiArrayConstraint = multiArray
    imageConstraint = image
  }

  /// Whether the model would take the value: its kind and, for an array, its shape.
  ///
  /// Element types are not compared, since Core ML converts between them.
  open func isAllowedValue(_ value: MLFeatureValue) -> Bool {
    guard !value.isUndefined else { return isOptional }
    guard value.type == type else { return false }
    guard let constraint = multiArrayConstraint, let array = value.multiArrayValue else {
      return true
    }
    return constraint.violation(of: array.shape.map(\.intValue)) == nil
  }
}
