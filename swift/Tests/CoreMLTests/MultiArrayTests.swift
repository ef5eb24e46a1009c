import Foundation
import Testing

@testable import CoreML

struct MultiArrayTests {
  @Test func aNewArrayIsDenseInFirstMajorOrder() throws {
    let array = try MLMultiArray(shape: [2, 3, 5], dataType: .float16)
    #expect(array.strides == [15, 5, 1])
    #expect(array.count == 30)
    #expect(array.withUnsafeBytes { $0.count } == 60)
  }

  @Test(arguments: [MLMultiArrayDataType.double, .float32, .float16, .int32])
  func elementsAreFoundByTheirStrides(type: MLMultiArrayDataType) {
    let array = counting([2, 3, 2], type, strides: [40, 8, 3])
    #expect(elements(array) == (0..<12).map(Double.init))
    #expect(array[[1, 2, 1]] == 11)
    // the place that the header's rule gives: sum of index times stride
    let bytes = array.withUnsafeBytes { bytes in
      (40 + 2 * 8 + 3) * type.byteCount..<bytes.count
    }
    #expect(bytes.count == type.byteCount)
  }

  @Test func memoryOfTheCallersIsUsedAndFreedOnce() throws {
    let freed = Counter()
    let pointer = UnsafeMutableRawPointer.allocate(byteCount: 64, alignment: 64)
    do {
      let array = try MLMultiArray(
        dataPointer: pointer, shape: [2, 2], dataType: .int32, strides: [4, 1],
        deallocator: { pointer in
          freed.count += 1
          pointer.deallocate()
        })
      array[3] = 7
      #expect(pointer.load(fromByteOffset: 20, as: Int32.self) == 7)
      #expect(freed.count == 0)
    }
    #expect(freed.count == 1)
  }

  @Test func impossibleShapesAreRefused() {
    #expect(throws: MLModelError.self) { try MLMultiArray(shape: [2, -1], dataType: .float32) }
    let huge = NSNumber(value: Int.max / 2)
    #expect(throws: MLModelError.self) { try MLMultiArray(shape: [huge, huge], dataType: .double) }
    let unknown = MLMultiArrayDataType(rawValue: 99)
    #expect(throws: MLModelError.self) {
      try MLMultiArray(shape: [1], dataType: #require(unknown))
    }
  }

  @Test func transferConvertsTypeAndLayout() {
    let source = counting([2, 3, 4], .float32, strides: [64, 16, 1], from: 5)
    let target = MLMultiArray(shape: [2, 3, 4], dataType: .float16, strides: [1, 2, 6])
    source.transfer(to: target)
    #expect(elements(target) == (5..<29).map(Double.init))
  }

  @Test func shapedArraysGoThereAndBack() {
    let shaped = MLShapedArray<Float>(scalars: [1, 2, 3, 4, 5, 6], shape: [2, 3])
    let array = MLMultiArray(shaped)
    #expect(array.dataType == .float32)
    #expect(MLShapedArray<Float>(array) == shaped)
    #expect(shaped[scalarAt: 1, 0] == 4)
    let padded = counting([2, 3], .float16, strides: [32, 1], from: 1)
    #expect(MLShapedArray<Float>(converting: padded) == shaped)
    #expect(MLFeatureValue(multiArray: padded).shapedArrayValue(of: Float.self) == nil)
    #expect(MLFeatureValue(multiArray: padded).shapedArrayValue(of: Float16.self)?.scalarCount == 6)
  }

  @Test func emptyAndScalarArraysWork() throws {
    let empty = try MLMultiArray(shape: [0, 3], dataType: .float32)
    #expect(empty.count == 0 && empty.withUnsafeBytes { $0.count } == 0)
    let scalar = try MLMultiArray(shape: [], dataType: .double)
    scalar[[]] = 2.5
    #expect(scalar[0] == 2.5)
    #expect(MLShapedArray<Double>(scalar).scalars == [2.5])
  }

  @Test func literalsMakeOneDimension() throws {
    #expect(try elements(MLMultiArray([1, 2, 3])) == [1, 2, 3])
    #expect(try MLMultiArray([1.5 as Float]).dataType == .float32)
    #expect(try MLMultiArray([1.5]).dataType == .double)
  }
}

private final class Counter {
  var count = 0
}
