/// IEEE 754 binary16 in bit patterns.
///
/// Swift's `Float16` is missing on Intel Macs: conversions are done on bits, the same everywhere.
enum Half {
  /// The largest finite value.
  static let largest = 65504

  /// The value of a pattern: exact, and infinities and NaN stay what they are.
  static func float(_ pattern: UInt16) -> Float {
    let sign = UInt32(pattern & 0x8000) << 16
    let exponent = UInt32(pattern >> 10) & 0x1F
    let mantissa = UInt32(pattern & 0x3FF)
    switch exponent {
    case 0:
      let magnitude = Float(mantissa) * 0x1p-24  // subnormal: mantissa * 2^-24, exact in float32
      return sign == 0 ? magnitude : -magnitude
    case 0x1F: return Float(bitPattern: sign | 0x7F80_0000 | mantissa << 13)
    default: return Float(bitPattern: sign | (exponent + 112) << 23 | mantissa << 13)
    }
  }

  /// The nearest pattern, ties to even; too large becomes infinity.
  static func pattern(_ value: Float) -> UInt16 {
    let bits = value.bitPattern
    let sign = UInt16(truncatingIfNeeded: bits >> 16) & 0x8000
    let magnitude = bits & 0x7FFF_FFFF
    if magnitude > 0x7F80_0000 { return sign | 0x7E00 }  // NaN, quiet
    if magnitude >= 0x477F_F000 { return sign | 0x7C00 }  // 65520 and more round to infinity
    if magnitude < 0x3880_0000 {  // below 2^-14: the result counts steps of 2^-24
      let steps = (Float(bitPattern: magnitude) * 0x1p24).rounded(.toNearestOrEven)
      return sign | UInt16(steps)
    }
    let rebased = magnitude - (112 << 23)
    let rounded = rebased + 0xFFF + (rebased >> 13 & 1)
    return sign | UInt16(truncatingIfNeeded: rounded >> 13)
  }
}
