import CoreML
import Foundation

extension MLMultiArray {
  /// The elements in C order as floats, whatever the strides.
  ///
  /// - Throws: `FluxVAEError.elementType` for anything but float16, float32 and float64.
  func floats() throws -> [Float] {
    let rows = StridedRows(shape: shape.map(\.intValue), strides: strides.map(\.intValue))
    return try withUnsafeBytes { bytes in
      switch dataType {
      case .float16: try rows.gather(bytes, as: UInt16.self, HalfPrecision.float)
      case .float32: try rows.gather(bytes, as: Float.self) { $0 }
      case .float64: try rows.gather(bytes, as: Double.self) { Float($0) }
      default: throw FluxVAEError.elementType(dataType.rawValue)
      }
    }
  }

  /// A new array of `shape` with `values` in C order, rounded to the element type.
  ///
  /// - Throws: `FluxVAEError.elementType` for anything but float16, float32 and float64; whatever
  ///   Core ML throws when it cannot allocate.
  static func filled(
    with values: [Float], shape: [Int], dataType: MLMultiArrayDataType
  ) throws -> MLMultiArray {
    let array = try MLMultiArray(shape: shape.map { NSNumber(value: $0) }, dataType: dataType)
    try array.withUnsafeMutableBytes { bytes, strides in
      let rows = StridedRows(shape: shape, strides: strides)
      switch dataType {
      case .float16: try rows.scatter(values, to: bytes, HalfPrecision.bits)
      case .float32: try rows.scatter(values, to: bytes) { $0 }
      case .float64: try rows.scatter(values, to: bytes) { Double($0) }
      default: throw FluxVAEError.elementType(dataType.rawValue)
      }
    }
    return array
  }
}

extension StridedRows {
  /// The elements of a strided buffer, in order.
  fileprivate func gather<Element>(
    _ bytes: UnsafeRawBufferPointer, as type: Element.Type, _ convert: (Element) -> Float
  ) throws -> [Float] {
    let source = bytes.bindMemory(to: type)
    try check(capacity: source.count)
    return [Float](unsafeUninitializedCapacity: count) { values, filled in
      forEachOffset { offset in
        for index in 0..<length {
          values.initializeElement(at: filled, to: convert(source[offset + index * step]))
          filled += 1
        }
      }
    }
  }

  /// Writes elements, given in order, into a strided buffer.
  fileprivate func scatter<Element>(
    _ values: [Float], to bytes: UnsafeMutableRawBufferPointer, _ convert: (Float) -> Element
  ) throws {
    let target = bytes.bindMemory(to: Element.self)
    try check(capacity: target.count)
    var next = 0
    values.withUnsafeBufferPointer { source in
      forEachOffset { offset in
        for index in 0..<length {
          target[offset + index * step] = convert(source[next])
          next += 1
        }
      }
    }
  }

  private func check(capacity: Int) throws {
    guard reach <= capacity else {
      throw FluxVAEError.strides(reach: reach, capacity: capacity)
    }
  }
}
