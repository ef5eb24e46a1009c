import Foundation

/// Copies every element of one array into another of the same shape, type and layout converted.
///
/// Rows that lie without gaps in both, with one element type, are copied whole.
func copyElements(
  from source: UnsafeRawPointer, _ from: ArrayLayout, _ sourceType: MLMultiArrayDataType,
  to target: UnsafeMutableRawPointer, _ to: ArrayLayout, _ targetType: MLMultiArrayDataType
) {
  guard from.count > 0 else { return }
  let size = sourceType.byteCount
  if sourceType == targetType, from.isDense, to.isDense {
    target.copyMemory(from: source, byteCount: from.count * size)
    return
  }
  let rowLength = from.shape.last ?? 1
  let steps = (from.strides.last ?? 1, to.strides.last ?? 1)
  let whole = sourceType == targetType && steps == (1, 1)
  forEachRow(from, to) { sourceOffset, targetOffset in
    if whole {
      (target + targetOffset * size).copyMemory(
        from: source + sourceOffset * size, byteCount: rowLength * size)
      return
    }
    for column in 0..<rowLength {
      let number = sourceType.number(at: source, offset: sourceOffset + column * steps.0)
      targetType.store(number, at: target, offset: targetOffset + column * steps.1)
    }
  }
}

/// Calls `body` with the offsets of every row of the last dimension in two arrays of one shape.
private func forEachRow(_ one: ArrayLayout, _ other: ArrayLayout, _ body: (Int, Int) -> Void) {
  let axes = max(0, one.shape.count - 1)
  var index = [Int](repeating: 0, count: axes)
  var offsets = (0, 0)
  while true {
    body(offsets.0, offsets.1)
    var axis = axes - 1
    while axis >= 0 {
      index[axis] += 1
      offsets.0 += one.strides[axis]
      offsets.1 += other.strides[axis]
      if index[axis] < one.shape[axis] { break }
      offsets.0 -= one.shape[axis] * one.strides[axis]
      offsets.1 -= one.shape[axis] * other.strides[axis]
      index[axis] = 0
      axis -= 1
    }
    if axis < 0 { return }
  }
}

extension MLMultiArrayDataType {
  /// Bytes of one element. Throws `MLModelError.generic` for a type this module does not know.
  func checkedByteCount() throws -> Int {
    guard isKnown else {
      throw MLModelError(
        .generic,
        "The multi-array data type \(rawValue) is unknown; use double, float32, "
          + "float16 or int32.")
    }
    return byteCount
  }

  func number(at base: UnsafeRawPointer, offset: Int) -> NSNumber {
    let place = base + offset * byteCount
    switch self {
    case .double: return NSNumber(value: place.loadUnaligned(as: Double.self))
    case .float32: return NSNumber(value: place.loadUnaligned(as: Float.self))
    case .float16: return NSNumber(value: Float(place.loadUnaligned(as: Float16.self)))
    default: return NSNumber(value: place.loadUnaligned(as: Int32.self))
    }
  }

  func store(_ number: NSNumber, at base: UnsafeMutableRawPointer, offset: Int) {
    let place = base + offset * byteCount
    switch self {
    case .double: place.storeBytes(of: number.doubleValue, as: Double.self)
    case .float32: place.storeBytes(of: Float(number.doubleValue), as: Float.self)
    case .float16: place.storeBytes(of: Float16(number.doubleValue), as: Float16.self)
    default: place.storeBytes(of: number.int32Value, as: Int32.self)
    }
  }
}
