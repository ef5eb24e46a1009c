import Testing

@testable import HarnessCore

/// Speeds depend on the machine and are not judged here: `fluxvae-harness speed` prints them.
@Suite("The speed check")
struct SpeedTests {
  @Test("it measures the padded output it says it measures")
  func small() throws {
    let speed = try CopySpeed.measure(shape: [3, 8, 16], padding: 16, rounds: 3)
    #expect(speed.strides == [256, 32, 1])
    #expect(speed.rows > 0 && speed.memcpy > 0 && speed.tensor > 0)
    #expect(speed.lines.count == 4)
  }
}
