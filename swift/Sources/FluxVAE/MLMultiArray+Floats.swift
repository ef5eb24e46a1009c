import CoreML
internal import FluxVAESupport
import Foundation

extension MLMultiArray {
  /// The elements in C order as floats, whatever the strides.
  ///
  /// - Throws: `FluxVAEError.strides`; `.elementType` for anything but float16, float32, float64.
  func floats() throws -> [Float] {
    let layout = try StridedLayout(
      shape.map(\.intValue), strides: strides.map(\.intValue), type: dataType)
    return withUnsafeBytes { layout.floats($0.baseAddress) }
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
    try values.checkFinite(what, limit: dataType == .float16 ? Half.limit : .infinity)
    let array = try MLMultiArray(shape: shape.map { NSNumber(value: $0) }, dataType: dataType)
    try array.withUnsafeMutableBytes { bytes, strides in
      try StridedLayout(shape, strides: strides, type: dataType)
        .write(values, to: bytes.baseAddress)
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
extension StridedLayout {
  /// - Throws: `FluxVAEError.strides` when they do not describe an array of this shape;
  ///   `.elementType` for anything but float16, float32 and float64.
  init(_ shape: [Int], strides: [Int], type: MLMultiArrayDataType) throws {
    let size =
      switch type {
      case .float16: 2
      case .float32: 4
      case .float64: 8
      default: throw FluxVAEError.elementType(type.rawValue)
      }
    guard let layout = Self(shape: shape, strides: strides, scalarSize: size) else {
      throw FluxVAEError.strides(strides, shape: shape)
    }
    self = layout
  }

  /// The elements that begin at `source`, in C order.
  func floats(_ source: UnsafeRawPointer?) -> [Float] {
    switch scalarSize {
    case 2: elements(source, of: UInt16.self).map(Half.float)
    case 4: elements(source, of: Float.self)
    default: elements(source, of: Double.self).map { Float($0) }
    }
  }

  /// Writes elements, given in C order, into the strided memory that begins at `target`.
  fileprivate func write(_ values: [Float], to target: UnsafeMutableRawPointer?) {
    switch scalarSize {
    case 2: write(elements: values.map(Half.pattern), to: target)
    case 4: write(elements: values, to: target)
    default: write(elements: values.map { Double($0) }, to: target)
    }
  }

  private func elements<Element: BitwiseCopyable>(
    _ source: UnsafeRawPointer?, of type: Element.Type
  ) -> [Element] {
    let count = denseByteCount / scalarSize
    return [Element](unsafeUninitializedCapacity: count) { elements, filled in
      gather(from: source, into: elements.baseAddress)
      filled = source == nil ? 0 : count
    }
  }

  private func write<Element: BitwiseCopyable>(
    elements: [Element], to target: UnsafeMutableRawPointer?
  ) {
    elements.withUnsafeBytes { scatter(from: $0.baseAddress, into: target) }
  }
}
