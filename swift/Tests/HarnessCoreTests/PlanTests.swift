import Testing

@testable import HarnessCore

@Suite("Plan summaries")
struct PlanTests {
  static let entries = [
    entry("const"), entry("ios18.const", .cpu),
    entry("ios18.conv", .neuralEngine, cost: 0.5), entry("ios18.relu", .neuralEngine, cost: 0.25),
    entry("ios16.constexpr_lut_to_dense"), entry("ios16.constexpr_lut_to_dense", .cpu, cost: 0),
    entry("ios18.conv", .gpu, cost: 0.125), entry("ios18.cast"),
  ]

  @Test("constants are apart; the rest is counted by type and device")
  func counts() {
    let all: [Device] = [.cpu, .gpu, .neuralEngine]
    let result = PlanReport.Result(Self.entries, units: .all, function: "main", present: all)
    #expect(result.constants == 3)
    #expect(result.operations == 5)
    #expect(result.devices == ["neuralEngine": 2, "cpu": 1, "gpu": 1, "none": 1])
    #expect(result.costByDevice == ["neuralEngine": 0.75, "cpu": 0, "gpu": 0.125])
    #expect(result.types.map(\.operator).first == "ios18.conv")
    #expect(result.types.first?.devices == ["neuralEngine": 1, "gpu": 1])
    #expect(result.leftNeuralEngine == [2, 3, 4])
    #expect(result.leftNeuralEngine.map { result.ops[$0].operator }.contains("ios18.cast"))
  }

  @Test(
    "nothing left the Neural Engine where it is not allowed or not there",
    arguments: [
      (ComputeUnits.cpuOnly, [Device.cpu, .neuralEngine]), (.cpuAndGPU, [.cpu, .neuralEngine]),
      (.all, [.cpu, .gpu]),
    ])
  func absent(units: ComputeUnits, present: [Device]) {
    let result = PlanReport.Result(Self.entries, units: units, function: "main", present: present)
    #expect(result.leftNeuralEngine == [])
  }

  private static func entry(
    _ name: String, _ device: Device? = nil, cost: Double? = nil
  ) -> PlanEntry {
    let usage = device.map { PlanEntry.Usage(supported: [.cpu, $0], preferred: $0) }
    return PlanEntry(operator: name, output: "x", usage: usage, cost: cost)
  }
}
