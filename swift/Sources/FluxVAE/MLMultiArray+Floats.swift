import CoreML
import Foundation

extension MLMultiArray {
  /// The elements in C order as floats, whatever the strides.
  ///
  /// - Throws: `FluxVAEError.strides`; `.elementType` for anything but float16, float32, float64.
  func floats() throws -> [Float] {
    let rows = try StridedRows(shape: shape.map(\.intValue), strides: strides.map(\.intValue))
    return try withUnsafeBytes { try rows.floats($0.baseAddress, of: dataType) }
  }

  /// A new array of `shape` with `values` in C order, rounded to the element type.
  ///
  /// - Parameter what: What the values are, for the message.
  /// - Throws: `FluxVAEError.nonFinite` for values that are not finite in the element type;
  ///   `.elementType` for anything but float16, float32 and float64; whatever Core ML throws when
  ///   it cannot allocate.
  static func filled(
    with values: [Float], shape: [Int], dataType: MLMultiArrayDataType, what: String
  ) throws -> MLMultiArray {
    try values.checkFinite(what, limit: dataType == .float16 ? HalfPrecision.limit : .infinity)
    let array = try MLMultiArray(shape: shape.map { NSNumber(value: $0) }, dataType: dataType)
    try array.withUnsafeMutableBytes { bytes, strides in
      let rows = try StridedRows(shape: shape, strides: strides)
      switch dataType {
      case .float16: rows.scatter(values, to: bytes.baseAddress, HalfPrecision.bits)
      case .float32: rows.scatter(values, to: bytes.baseAddress) { $0 }
      case .float64: rows.scatter(values, to: bytes.baseAddress) { Double($0) }
      default: throw FluxVAEError.elementType(dataType.rawValue)
      }
    }
    return array
  }
}

extension [Float] {
  /// - Throws: `FluxVAEError.nonFinite` when a magnitude is `limit` or more, or not a number.
  func checkFinite(_ what: String, limit: Float = .infinity) throws {
    let wrong = withUnsafeBufferPointer { values in
      values.reduce(0) { $1.magnitude < limit ? $0 : $0 + 1 }
    }
    if wrong > 0 { throw FluxVAEError.nonFinite(what: what, count: wrong, of: count) }
  }
}

// Strides are the contract, as in the harness: Core ML does not document whether the bytes that it
// hands out are counted with the padding, so that count is not compared with them.
extension StridedRows {
  /// The elements that begin at `source`, in C order.
  ///
  /// - Throws: `FluxVAEError.elementType` for anything but float16, float32 and float64.
  func floats(_ source: UnsafeRawPointer?, of type: MLMultiArrayDataType) throws -> [Float] {
    switch type {
    case .float16: gather(source, as: UInt16.self, HalfPrecision.float)
    case .float32: floats(source)
    case .float64: gather(source, as: Double.self) { Float($0) }
    default: throw FluxVAEError.elementType(type.rawValue)
    }
  }

  /// Elements that are floats already: whole runs are copied.
  private func floats(_ source: UnsafeRawPointer?) -> [Float] {
    guard step == 1 else { return gather(source, as: Float.self) { $0 } }
    return [Float](unsafeUninitializedCapacity: count) { values, filled in
      guard let target = values.baseAddress, let source else { return }
      let elements = source.assumingMemoryBound(to: Float.self)
      forEachOffset { offset in
        (target + filled).initialize(from: elements + offset, count: length)
        filled += length
      }
    }
  }

  private func gather<Element>(
    _ source: UnsafeRawPointer?, as type: Element.Type, _ convert: (Element) -> Float
  ) -> [Float] {
    [Float](unsafeUninitializedCapacity: count) { values, filled in
      guard let elements = source?.assumingMemoryBound(to: type) else { return }
      forEachOffset { offset in
        for index in 0..<length {
          values.initializeElement(at: filled, to: convert(elements[offset + index * step]))
          filled += 1
        }
      }
    }
  }

  /// Writes elements, given in C order, into the strided memory that begins at `target`.
  fileprivate func scatter<Element>(
    _ values: [Float], to target: UnsafeMutableRawPointer?, _ convert: (Float) -> Element
  ) {
    guard let elements = target?.assumingMemoryBound(to: Element.self) else { return }
    var next = 0
    values.withUnsafeBufferPointer { source in
      forEachOffset { offset in
        for index in 0..<length {
          elements[offset + index * step] = convert(source[next])
          next += 1
        }
      }
    }
  }
}
