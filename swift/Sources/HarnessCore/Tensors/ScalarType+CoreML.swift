import CoreML

extension ScalarType {
  /// Nil for a type that decoders do not have.
  init?(_ type: MLMultiArrayDataType) {
    switch type {
    case .float16: self = .float16
    case .float32: self = .float32
    case .double: self = .float64
    case .int32: self = .int32
    default: return nil
    }
  }

  /// Core ML's name for it.
  var multiArrayType: MLMultiArrayDataType {
    switch self {
    case .float16: .float16
    case .float32: .float32
    case .float64: .double
    case .int32: .int32
    }
  }
}
