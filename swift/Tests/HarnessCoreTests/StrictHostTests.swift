import Testing

@testable import HarnessCore

@Suite("The rule of --strict-host")
struct StrictHostTests {
  @Test("a quiet host, and one that tells nothing, are taken")
  func quiet() {
    #expect(StrictHost.complaints(moment(.nominal, false, .ac, [4, 9, 9]), cores: 8) == [])
    #expect(StrictHost.complaints(moment(nil, nil, nil, nil), cores: 8) == [])
  }

  @Test("every noise is named")
  func noisy() {
    let found = StrictHost.complaints(moment(.fair, true, .battery, [4.1, 0, 0]), cores: 8)
    #expect(
      found == [
        "the thermal state is fair", "low-power mode is on", "it runs from the battery",
        "its load average is 4.10 on 8 cores",
      ])
    #expect(HostError.noisy(found).localizedDescription.contains("low-power mode is on; it runs"))
  }

  private func moment(
    _ thermal: Moment.ThermalState?, _ low: Bool?, _ power: Moment.PowerSource?, _ load: [Double]?
  ) -> Moment {
    Moment(
      time: "2026-01-01T00:00:00Z", thermalState: thermal, lowPowerMode: low, powerSource: power,
      loadAverage: load, processMemoryBytes: nil)
  }
}
