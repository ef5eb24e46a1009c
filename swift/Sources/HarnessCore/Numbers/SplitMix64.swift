/// A generator defined bit by bit (Steele, Lea and Flood 2014), for inputs that need no meaning.
struct SplitMix64: RandomNumberGenerator {
  private var state: UInt64

  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }

  /// Uniform in [-1, 1), in steps of 2^-23: exact in float32.
  mutating func unit() -> Float {
    Float(Int32(truncatingIfNeeded: next() >> 40) - 0x80_0000) * 0x1p-23
  }
}
