/// IEEE 754 binary16 in bit patterns.
///
/// Swift's `Float16` is missing on Intel Macs: conversions are done on bits, the same everywhere.
package enum Half {
  /// The largest finite value.
  package static let largest = 65504
  /// Half-way from the largest value to the one that would come after it: from here on a float
  /// becomes infinite.
  @inlinable package static var limit: Float { 65520 }

  /// The value of a pattern: exact, and infinities and NaN stay what they are.
  @inlinable
  package static func float(_ pattern: UInt16) -> Float {
    let magnitude = UInt32(pattern & 0x7FFF) << 13
    let sign = UInt32(pattern & 0x8000) << 16
    if magnitude >= 0x7C00 << 13 {  // infinity, or not a number
      return Float(bitPattern: magnitude + (224 << 23) | sign)
    }
    // Normal and subnormal alike: half's exponent bias is 15 and float's 127.
    let scaled = Float(bitPattern: magnitude) * 0x1p112
    return Float(bitPattern: scaled.bitPattern | sign)
  }

  /// The nearest pattern, ties to even; too large becomes infinity.
  @inlinable
  package static func pattern(_ value: Float) -> UInt16 {
    let sign = UInt16(truncatingIfNeeded: (value.bitPattern >> 16) & 0x8000)
    let magnitude = value.magnitude
    if !(magnitude < limit) {  // or NaN
      return sign | (magnitude.isNaN ? 0x7E00 : 0x7C00)
    }
    if magnitude < 0x1p-14 {  // subnormal: adding 0.5 leaves 2^-24 as the last place
      return sign | UInt16(truncatingIfNeeded: (magnitude + 0.5).bitPattern)
    }
    let bits = magnitude.bitPattern
    let rounded = bits + 0xFFF + ((bits >> 13) & 1)  // half a place, less when even
    return sign | UInt16(truncatingIfNeeded: (rounded >> 13) - (112 << 10))
  }
}
