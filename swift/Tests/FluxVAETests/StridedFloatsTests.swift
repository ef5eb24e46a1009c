import CoreML
import FluxVAESupport
import Foundation
import Testing

@testable import FluxVAE

/// The oracle is Core ML's own subscript by index, one element at a time.
@Suite struct StridedFloatsTests {
  struct Case: Sendable, CustomTestStringConvertible {
    let shape: [Int]
    let strides: [Int]
    var testDescription: String { "\(shape) strides \(strides)" }
  }

  static let cases = [
    Case(shape: [1, 3, 4, 5], strides: [60, 20, 5, 1]),  // dense
    Case(shape: [1, 3, 4, 5], strides: [96, 32, 8, 1]),  // padded rows
    Case(shape: [1, 3, 4, 5], strides: [90, 30, 5, 1]),  // padded planes
    Case(shape: [1, 4, 5, 3], strides: [640, 160, 32, 1]),  // each NHWC pixel padded to 64 bytes
    Case(shape: [1, 3, 4, 5], strides: [60, 1, 15, 3]),  // planes interleaved
    Case(shape: [2, 1, 1, 1], strides: [7, 7, 7, 7]),
    Case(shape: [1, 1, 1, 1], strides: [1, 1, 1, 1]),
    Case(shape: [6], strides: [2]),
  ]
  static let types: [MLMultiArrayDataType] = [.float16, .float32, .float64]

  @Test(arguments: cases, types)
  func readsWhatTheSubscriptReads(of given: Case, as type: MLMultiArrayDataType) throws {
    let array = MLMultiArray(shape: given.shape, dataType: type, strides: given.strides)
    let indices = allIndices(of: given.shape)
    for (count, index) in indices.enumerated() {
      array[index.map { NSNumber(value: $0) }] = NSNumber(value: Float(count) / 4 - 7)
    }
    #expect(try array.floats() == indices.indices.map { Float($0) / 4 - 7 })
  }

  @Test(arguments: types)
  func writesWhatTheSubscriptReads(as type: MLMultiArrayDataType) throws {
    let shape = [1, 2, 3, 4]
    let values = (0..<24).map { Float($0) / 8 - 1 }
    let array = try MLMultiArray.filled(with: values, shape: shape, dataType: type, what: "test")
    let read = allIndices(of: shape).map { array[$0.map { NSNumber(value: $0) }].floatValue }
    #expect(read == values)
  }

  @Test func otherElementsAreRefused() throws {
    let array = try MLMultiArray(shape: [2], dataType: .int32)
    #expect(throws: FluxVAEError.elementType(MLMultiArrayDataType.int32.rawValue)) {
      try array.floats()
    }
  }

  /// As the harness: see its test of the same strides.
  @Test(arguments: [
    ([2, 3], [1]), ([2, 3], [-3, 1]), ([2, 3], [.max, 1]), ([2, -3], [3, 1]),
    ([.max, 3], [3, 1]), ([0, .max], [.max, .max]),
  ])
  func stridesThatDescribeNoArrayAreRefused(shape: [Int], strides: [Int]) {
    #expect(throws: FluxVAEError.strides(strides, shape: shape)) {
      try StridedLayout(shape, strides: strides, type: .float64)
    }
  }

  /// Core ML may count the bytes of an array without its padding; strides are what holds.
  @Test func stridesAreTheContractAndNotACountOfBytes() throws {
    let padded: [Float] = [0, 1, 2, .nan, .nan, 3, 4, 5, .nan, .nan]
    let layout = try StridedLayout([2, 3], strides: [5, 1], type: .float32)
    let values = padded.withUnsafeBytes { bytes in
      layout.floats(UnsafeRawBufferPointer(rebasing: bytes[..<24]).baseAddress)
    }
    #expect(values == [0, 1, 2, 3, 4, 5])
  }

  @Test(arguments: [Float.nan, .infinity, -.infinity, 65520, 1e30])
  func whatIsNotFiniteAsTheElementTypeIsRefused(value: Float) throws {
    let error = FluxVAEError.nonFinite(what: "latent", count: 2, of: 3)
    #expect(throws: error) {
      try MLMultiArray.filled(
        with: [value, 65519, -value], shape: [3], dataType: .float16, what: "latent")
    }
    let wide = Result {
      try MLMultiArray.filled(
        with: [value, 65519, -value], shape: [3], dataType: .float32, what: "latent")
    }
    #expect((try? wide.get()) != nil || !value.isFinite)
  }

  /// Every index of a shape in C order.
  private func allIndices(of shape: [Int]) -> [[Int]] {
    shape.reduce([[]]) { indices, extent in
      indices.flatMap { index in (0..<extent).map { index + [$0] } }
    }
  }
}
