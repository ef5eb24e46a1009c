import Foundation

/// The value of one feature.
///
/// Image, sequence and dictionary values are not declared: Linux has no pixel buffers, and no model
/// that this module runs takes the others.
open class MLFeatureValue: NSObject {
  private enum Content {
    case undefined(MLFeatureType)
    case int64(Int64)
    case double(Double)
    case string(String)
    case multiArray(MLMultiArray)
  }

  private let content: Content

  private init(_ content: Content) { self.content = content }

  public convenience init(int64 value: Int64) { self.init(.int64(value)) }
  public convenience init(double value: Double) { self.init(.double(value)) }
  public convenience init(string value: String) { self.init(.string(value)) }
  public convenience init(multiArray value: MLMultiArray) { self.init(.multiArray(value)) }
  public convenience init(undefined type: MLFeatureType) { self.init(.undefined(type)) }

  open var type: MLFeatureType {
    switch content {
    case .undefined(let type): type
    case .int64: .int64
    case .double: .double
    case .string: .string
    case .multiArray: .multiArray
    }
  }

  open var isUndefined: Bool {
    if case .undefined = content { true } else { false }
  }

  open var int64Value: Int64 {
    if case .int64(let value) = content { value } else { 0 }
  }

  open var doubleValue: Double {
    if case .double(let value) = content { value } else { 0 }
  }

  open var stringValue: String {
    if case .string(let value) = content { value } else { "" }
  }

  open var multiArrayValue: MLMultiArray? {
    if case .multiArray(let value) = content { value } else { nil }
  }
}

extension MLFeatureValue {
  public convenience init<Scalar: MLShapedArrayScalar>(shapedArray: MLShapedArray<Scalar>) {
    self.init(multiArray: MLMultiArray(shapedArray))
  }

  /// The array, when this value is one with elements of that very type.
  public func shapedArrayValue<Scalar: MLShapedArrayScalar>(
    of type: Scalar.Type
  ) -> MLShapedArray<Scalar>? {
    guard let array = multiArrayValue, array.dataType == type.multiArrayDataType else { return nil }
    return MLShapedArray<Scalar>(array)
  }
}
