import Testing

@testable import HarnessCore

@Suite("Drift")
struct DriftTests {
  let first: Tensor
  let other: Tensor

  init() throws {
    first = try Tensor([1, 2, 3], shape: [3], dtype: .float32)
    other = try Tensor([1, 2.5, 3], shape: [3], dtype: .float32)
  }

  @Test("equal outputs are equal bit by bit")
  func equal() throws {
    var tally = DriftTally(first: [first])
    for _ in 0..<3 { try tally.add([first]) }
    let run = tally.run(.cpuOnly)
    #expect(run.bitEqual && run.differing == 0 && run.firstDiffering == nil && run.maxAbs == 0)
    #expect(run.digest == SHA256.hexDigest(first.bytes))
  }

  @Test("the first difference is numbered and the largest one kept")
  func different() throws {
    var tally = DriftTally(first: [first])
    try tally.add([first])
    try tally.add([other])
    try tally.add([first])
    try tally.add([other])
    let run = tally.run(.all)
    #expect(!run.bitEqual)
    #expect(run.differing == 2)
    #expect(run.firstDiffering == 2)
    #expect(run.maxAbs == 0.5)
  }

  @Test("zero and minus zero differ in bits, not in value")
  func zeros() throws {
    let plus = try Tensor([0], shape: [1], dtype: .float32)
    let minus = try Tensor([-0.0], shape: [1], dtype: .float32)
    var tally = DriftTally(first: [plus])
    try tally.add([minus])
    #expect(tally.run(.all).differing == 1)
    #expect(tally.run(.all).maxAbs == 0)
  }

  @Test("a NaN leaves no largest difference, whatever comes after")
  func notFinite() throws {
    var tally = DriftTally(first: [first])
    try tally.add([try Tensor([1, .nan, 3], shape: [3], dtype: .float32)])
    try tally.add([other])
    #expect(tally.run(.all).differing == 2)
    #expect(tally.run(.all).maxAbs == nil)
  }

  @Test("each set of compute units is held against cpuOnly, if that was run")
  func acrossUnits() throws {
    let found = try Drift.compare([(.all, [other]), (.cpuOnly, [first]), (.cpuAndGPU, [first])])
    #expect(found.map(\.computeUnits) == [.all, .cpuAndGPU])
    #expect(found.map(\.bitEqual) == [false, true])
    #expect(found.first?.metrics.maxAbs == 0.5)
    #expect(try Drift.compare([(.all, [other])]) == [])
  }
}
