#if !(os(macOS) && arch(x86_64))  // Swift has no Float16 there to compare with
  import Testing

  @testable import HarnessCore

  @Suite("binary16 on bits, against Swift's own Float16")
  struct HalfTests {
    @Test("every pattern widens exactly")
    func widening() {
      for pattern in UInt16.min...UInt16.max {
        let expected = Float(Float16(bitPattern: pattern))
        let found = Half.float(pattern)
        #expect(found.isNaN ? expected.isNaN : found.bitPattern == expected.bitPattern)
      }
    }

    @Test("narrowing rounds to nearest even, at and beside every tie")
    func narrowing() {
      var wrong: [Float] = []
      for pattern in UInt16.min..<0x7C00 {
        let value = Half.float(pattern)
        let next = Half.float(pattern + 1)
        let tie = next.isInfinite ? 65520 : (value + next) / 2
        for candidate in [value, tie.nextDown, tie, tie.nextUp] {
          for signed in [candidate, -candidate]
          where Half.pattern(signed) != Float16(signed).bitPattern { wrong.append(signed) }
        }
      }
      #expect(wrong == [])
    }

    @Test("what does not fit becomes infinite, and NaN stays NaN")
    func extremes() {
      #expect(Half.pattern(.greatestFiniteMagnitude) == 0x7C00)
      #expect(Half.pattern(-.infinity) == 0xFC00)
      #expect(Half.float(Half.pattern(.nan)).isNaN)
      #expect(Half.pattern(.leastNonzeroMagnitude) == 0)
    }
  }
#endif
