import Testing

@testable import FluxVAE

#if !((os(macOS) || targetEnvironment(macCatalyst)) && arch(x86_64))
  /// The oracle is the language's own `Float16`.
  @Suite struct HalfPrecisionTests {
    @Test func everyHalfHasItsValue() {
      let wrong = (UInt16.min...UInt16.max).filter { half in
        let expected = Float(Float16(bitPattern: half))
        let found = HalfPrecision.float(half)
        return expected.isNaN ? !found.isNaN : found.bitPattern != expected.bitPattern
      }
      #expect(wrong.isEmpty)
    }

    /// Each half, the floats next to it, and the ties between neighbours.
    @Test func floatsRoundToTheNearestHalf() {
      let wrong = (UInt16.min...0x7C00).flatMap { half -> [Float] in
        let value = Float(Float16(bitPattern: half))
        let tie = Float((Double(value) + Double(value.ulp * 4096)))
        let near = [value, value.nextUp, value.nextDown, tie, tie.nextUp, tie.nextDown]
        return (near + near.map { -$0 }).filter {
          HalfPrecision.bits($0) != Float16($0).bitPattern
        }
      }
      #expect(wrong.isEmpty)
    }

    @Test(
      arguments: [
        0, -0.0, 0x1p-24, 0x1p-25, 0x1.000002p-25, 0x1p-14, 0x1.FF8p-15, 65504, 65519.99, 65520,
        1e9,
        .infinity, -.infinity, .leastNonzeroMagnitude, 1.0 / 3,
      ] as [Float])
    func edgesRoundAsFloat16Does(value: Float) {
      #expect(HalfPrecision.bits(value) == Float16(value).bitPattern)
    }

    @Test func notANumberStaysSo() {
      #expect(Float16(bitPattern: HalfPrecision.bits(.nan)).isNaN)
    }
  }
#endif
