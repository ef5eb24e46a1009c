import CoreML
import Foundation
import Testing

@testable import HarnessCore

@Suite("Tensor")
struct TensorTests {
  @Test("bytes must be as many as shape and type need")
  func length() {
    let fault = TensorError.length(shape: [2, 3], dtype: .float32, expected: 24, found: 12)
    #expect(throws: fault) {
      try Tensor(dtype: .float32, shape: [2, 3], bytes: [UInt8](repeating: 0, count: 12))
    }
  }

  @Test("shapes that no memory holds are refused", arguments: [[-1, 2], [.max, 2], [.max]])
  func impossible(shape: [Int]) {
    #expect(throws: TensorError.shape(shape)) {
      try Tensor.byteCount(dtype: .float32, shape: shape)
    }
  }

  @Test("conversion rounds once and widens exactly")
  func conversion() throws {
    let values: [Float] = [0, 1, -2.5, 1 / 3, 65504]
    let single = try Tensor(values, shape: [5], dtype: .float32)
    let half = try single.converted(to: .float16)
    #expect(half.bytes.count == 10)
    #expect(half.doubles() == [0, 1, -2.5, 0.333251953125, 65504])  // 1/3 in binary16: 1365 / 4096
    #expect(try half.converted(to: .float32).doubles() == half.doubles())
    #expect(try single.converted(to: .float64).doubles() == single.doubles())
    #expect(try single.converted(to: .float64).converted(to: .float32) == single)
    #expect(throws: TensorError.conversion(from: .float32, to: .int32)) {
      try single.converted(to: .int32)
    }
  }

  @Test(
    "an array of Core ML takes a tensor and gives it back",
    arguments: [
      ScalarType.float16, .float32,
    ])
  func roundTrip(dtype: ScalarType) throws {
    let values = (0..<24).map { Float($0) - 3.5 }
    let tensor = try Tensor(values, shape: [1, 2, 3, 4], dtype: dtype)
    let array = try tensor.multiArray()
    #expect(array.shape.map(\.intValue) == [1, 2, 3, 4])
    #expect(array[[0, 1, 2, 3]].floatValue == 19.5)
    #expect(try Tensor(array) == tensor)
  }

  @Test(
    "padded rows of an array of Core ML are read right",
    arguments: [
      ScalarType.float16, .float32,
    ])
  func padded(dtype: ScalarType) throws {
    let strides = [120, 60, 16, 1]  // 3 rows of 5 values, padded to 16, and planes padded too
    let size = dtype.byteCount
    let storage = UnsafeMutableRawPointer.allocate(byteCount: 240 * size, alignment: 64)
    storage.initializeMemory(as: UInt8.self, repeating: 0xFF, count: 240 * size)  // NaN
    let array = try MLMultiArray(
      dataPointer: storage, shape: [1, 2, 3, 5].map { NSNumber(value: $0) },
      dataType: dtype.multiArrayType, strides: strides.map { NSNumber(value: $0) },
      deallocator: { $0.deallocate() })
    for c in 0..<2 {
      for h in 0..<3 {
        for w in 0..<5 {
          array[[0, c, h, w].map { NSNumber(value: $0) }] = NSNumber(value: 100 * c + 10 * h + w)
        }
      }
    }
    let expected: [Double] = [
      0, 1, 2, 3, 4, 10, 11, 12, 13, 14, 20, 21, 22, 23, 24,
      100, 101, 102, 103, 104, 110, 111, 112, 113, 114, 120, 121, 122, 123, 124,
    ]
    #expect(try Tensor(array).doubles() == expected)
  }
}
