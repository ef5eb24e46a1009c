/// IEEE half precision by its bits, since macOS on Intel has no `Float16`.
enum HalfPrecision {
  /// Half-way from the largest half, 65504, to the one that would come after it: from here on a
  /// float becomes infinite.
  static let limit: Float = 65520

  /// The value of 16 bits, exactly.
  @inline(__always)
  static func float(_ half: UInt16) -> Float {
    let magnitude = UInt32(half & 0x7FFF) << 13
    let sign = UInt32(half & 0x8000) << 16
    if magnitude >= 0x7C00 << 13 {  // infinity, or not a number
      return Float(bitPattern: magnitude + (224 << 23) | sign)
    }
    // Normal and subnormal alike: half's exponent bias is 15 and float's 127.
    let scaled = Float(bitPattern: magnitude) * 0x1p112
    return Float(bitPattern: scaled.bitPattern | sign)
  }

  /// The nearest half, ties to even; too large becomes infinity.
  @inline(__always)
  static func bits(_ value: Float) -> UInt16 {
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
