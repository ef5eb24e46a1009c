import Foundation

/// Shapes, types and bytes that do not fit together.
public enum TensorError: Error, Equatable, Sendable {
  case shape([Int])
  case length(shape: [Int], dtype: ScalarType, expected: Int, found: Int)
  case conversion(from: ScalarType, to: ScalarType)
  case strides(shape: [Int], strides: [Int])
  case storage(needed: Int, found: Int)
}

extension TensorError: LocalizedError {
  /// One sentence: what was expected and what came.
  public var errorDescription: String? {
    switch self {
    case .shape(let shape):
      "the shape \(shape) is not possible: an extent is negative, or the product too large"
    case .length(let shape, let dtype, let expected, let found):
      "an array \(shape) of \(dtype.rawValue) takes \(expected) bytes, and there are \(found)"
    case .conversion(let from, let to):
      "\(from.rawValue) is not converted to \(to.rawValue) here"
    case .strides(let shape, let strides):
      "the strides \(strides) do not describe an array of shape \(shape)"
    case .storage(let needed, let found):
      "the strides reach over \(needed) bytes, and the storage has \(found)"
    }
  }
}
