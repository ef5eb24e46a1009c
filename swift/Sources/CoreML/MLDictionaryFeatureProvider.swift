import Foundation

/// Feature values held in a dictionary.
open class MLDictionaryFeatureProvider: NSObject, MLFeatureProvider {
  public let dictionary: [String: MLFeatureValue]

  /// Wraps values that are not feature values yet: multi-arrays, integers, floating-point numbers
  /// and strings. Throws `MLModelError.featureType` for anything else.
  public init(dictionary: [String: Any]) throws {
    self.dictionary = try dictionary.reduce(into: [:]) { result, entry in
      result[entry.key] = try Self.wrap(entry.value, name: entry.key)
    }
  }

  open var featureNames: Set<String> { Set(dictionary.keys) }

  open func featureValue(for featureName: String) -> MLFeatureValue? { dictionary[featureName] }

  open subscript(featureName: String) -> MLFeatureValue? { dictionary[featureName] }

  private static func wrap(_ value: Any, name: String) throws -> MLFeatureValue {
    switch value {
    case let value as MLFeatureValue: return value
    case let value as MLMultiArray: return MLFeatureValue(multiArray: value)
    case let value as Int: return MLFeatureValue(int64: Int64(value))
    case let value as Int64: return MLFeatureValue(int64: value)
    case let value as Double: return MLFeatureValue(double: value)
    case let value as Float: return MLFeatureValue(double: Double(value))
    case let value as String: return MLFeatureValue(string: value)
    default:
      throw MLModelError(
        .featureType,
        "The value of feature '\(name)' is a \(type(of: value)), which no feature can hold.")
    }
  }
}
