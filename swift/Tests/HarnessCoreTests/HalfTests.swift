#if !((os(macOS) || targetEnvironment(macCatalyst)) && arch(x86_64))
  import FluxVAESupport
  import Testing

  @Suite("binary16 on bits, against Swift's own Float16")
  struct HalfTests {
    @Test("every pattern widens exactly")
    func widening() {
      let wrong = (UInt16.min...UInt16.max).filter { pattern in
        let expected = Float(Float16(bitPattern: pattern))
        let found = Half.float(pattern)
        return expected.isNaN ? !found.isNaN : found.bitPattern != expected.bitPattern
      }
      #expect(wrong.isEmpty)
    }

    @Test("narrowing rounds to nearest even: at and beside every value, tie and place between")
    func narrowing() {
      let wrong = (UInt16.min...0x7C00).flatMap { pattern -> [Float] in
        let value = Float(Float16(bitPattern: pattern))
        let next = Float(Float16(bitPattern: pattern + 1))
        let tie = next.isFinite ? (value + next) / 2 : 65520
        return [value, tie, value + value.ulp * 4096]
          .flatMap { [$0, $0.nextUp, $0.nextDown] }.flatMap { [$0, -$0] }
          .filter { Half.pattern($0) != Float16($0).bitPattern }
      }
      #expect(wrong == [])
    }

    @Test(
      "edges round as Float16 does",
      arguments: [
        0, -0.0, 0x1p-24, 0x1p-25, 0x1.000002p-25, 0x1p-14, 0x1.FF8p-15, 65504, 65519.99, 65520,
        1e9, .infinity, -.infinity, .greatestFiniteMagnitude, .leastNonzeroMagnitude, 1.0 / 3,
      ] as [Float])
    func edges(value: Float) {
      #expect(Half.pattern(value) == Float16(value).bitPattern)
    }

    @Test("what does not fit becomes infinite, and NaN stays NaN")
    func extremes() {
      #expect(Half.pattern(.greatestFiniteMagnitude) == 0x7C00)
      #expect(Half.pattern(-.infinity) == 0xFC00)
      #expect(Half.float(Half.pattern(.nan)).isNaN)
      #expect(Float16(bitPattern: Half.pattern(.nan)).isNaN)
      #expect(Half.pattern(.leastNonzeroMagnitude) == 0)
    }
  }
#endif
