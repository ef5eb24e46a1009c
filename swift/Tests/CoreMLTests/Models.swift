import Foundation
import TestSupport
import Testing

@testable import CoreML

/// Models made by the Python side, once for all tests.
enum Models {
  static let isPossible = EnginePython.problem == nil
  /// Why a test with models is skipped.
  static let reason = Comment(rawValue: EnginePython.problem ?? "")

  static func named(_ name: String, extension suffix: String = "mlmodelc") throws -> URL {
    try EnginePython.affineModels.get().appending(path: "\(name).\(suffix)")
  }

  static func load(_ name: String, function: String? = nil) throws -> MLModel {
    let configuration = MLModelConfiguration()
    configuration.functionName = function
    return try MLModel(contentsOf: named(name), configuration: configuration)
  }
}

/// The features `x` of a model whose `y` is 2x + 1.
func features(_ array: MLMultiArray) throws -> MLDictionaryFeatureProvider {
  try MLDictionaryFeatureProvider(dictionary: ["x": array])
}

/// An array of a shape whose elements count up from `first` in logical order.
func counting(
  _ shape: [Int], _ type: MLMultiArrayDataType = .float32, strides: [Int]? = nil,
  from first: Int = 0
) -> MLMultiArray {
  let array = MLMultiArray(
    shape: shape, dataType: type, strides: strides ?? ArrayLayout(dense: shape).strides)
  for index in 0..<array.count { array[index] = NSNumber(value: first + index) }
  return array
}

/// Every element, asked for one by one: slow, and independent of the copying under test.
func elements(_ array: MLMultiArray) -> [Double] {
  (0..<array.count).map { array[$0].doubleValue }
}

/// What `y` must be for `counting(_:from:)`.
func expected(_ count: Int, from first: Int = 0) -> [Double] {
  (0..<count).map { Double(2 * (first + $0) + 1) }
}
