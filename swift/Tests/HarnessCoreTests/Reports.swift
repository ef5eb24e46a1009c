@testable import HarnessCore

/// A report of each command, every optional field once known and once not.
enum Reports {
  static let all = [bench, validation, plan, unavailable, drift]

  private static func model(_ function: String?) -> ModelReport {
    var metadata = Interfaces.metadata()
    metadata["aKeyOfSome_One"] = "kept as it is"
    return ModelReport(
      path: "some/Model.mlmodelc", functions: function.map { [$0] }, function: function,
      interface: Interface(
        inputs: [
          Interfaces.feature("latent", [1, 4, 2, 3], enumerated: [[1, 4, 2, 3]]),
          Interfaces.feature("other", [1], ranges: [[1, 8], [2, nil]]),
        ],
        outputs: [Interfaces.feature("image", [], kind: .image, dtype: nil)],
        metadata: metadata))
  }

  private static let here = EnvironmentReport(
    backend: .coreml, os: "macOS", osVersion: "26.0", osBuild: nil, arch: "arm64", chip: "M0",
    cores: 8, memoryBytes: 1 << 34, swift: "6.3 release", devices: ["cpu", "neuralEngine"],
    before: Moment(
      time: "2026-01-01T00:00:00Z", thermalState: .nominal, lowPowerMode: false, powerSource: .ac,
      loadAverage: [0.5, 1.25, 2], processMemoryBytes: 12345),
    after: Moment(
      time: "2026-01-01T00:00:09Z", thermalState: nil, lowPowerMode: nil, powerSource: nil,
      loadAverage: nil, processMemoryBytes: nil))

  static var bench: Report {
    let samples = [2.0, 1.5, 1.0 / 3]
    let runs = Latency(samples).map { latency in
      [nil, 7.25].map { first in
        BenchRun(
          computeUnits: .cpuAndNeuralEngine, load: .init(firstMs: 100.5, secondMs: 3),
          firstCalls: FirstCalls(
            afterLoadMs: [7.25, 2, 2], idleS: first == nil ? 0 : 6,
            afterIdleMs: first.map { [$0, 3, 2] } ?? []),
          samplesMs: samples, latency: latency,
          peakMemoryBytes: first == nil ? nil : 77)
      }
    }
    let input = InputReport(source: .generated, path: nil, case: nil, seed: 0, shape: [1, 4, 2, 3])
    return Report(
      command: .bench, model: model("hw64"), environment: here, input: input, runs: runs,
      failures: [UnitFailure(computeUnits: .cpuAndGPU, failure: "it did not load")],
      notes: ["a note"])
  }

  static var validation: Report {
    let found = (try? metrics()) ?? []
    let results = found.map {
      ValidationReport.Result(computeUnits: .all, verdict: .fail, metrics: $0)
    }
    return Report(
      command: .validate, model: model(nil), environment: here,
      input: InputReport(source: .io, path: "io", case: "normal", seed: nil, shape: [2]),
      validation: ValidationReport(
        verdict: .fail, variant: "flux2", size: "16x24", case: "normal", precision: .float16,
        limit: Limit(metric: .psnrDb, bound: 60), results: results, notes: []),
      notes: [])
  }

  /// An equal pair (no PSNR), a near one, and one with a NaN (no distances at all).
  private static func metrics() throws -> [Metrics] {
    let zero = try Tensor([0, 1], shape: [2], dtype: .float32)
    return try [[0, 1], [0.125, 1], [.nan, 1]].map {
      try Metrics(try Tensor($0, shape: [2], dtype: .float32), against: zero)
    }
  }

  static var plan: Report {
    let result = PlanReport.Result(
      PlanTests.entries, units: .all, function: "main", present: [.cpu, .neuralEngine])
    return Report(
      command: .plan, model: model(nil), environment: here,
      plan: PlanReport(available: true, reason: nil, results: [result]), notes: [])
  }

  static var unavailable: Report {
    Report(
      command: .plan, model: model(nil), environment: here,
      plan: PlanReport(available: false, reason: "not here", results: []), notes: [])
  }

  static var drift: Report {
    let digest = SHA256.hexDigest([])
    let runs = [nil, 0.5].map { distance in
      DriftReport.Run(
        computeUnits: .cpuOnly, bitEqual: distance == nil, differing: distance == nil ? 0 : 3,
        firstDiffering: distance == nil ? nil : 1, maxAbs: distance, digest: digest)
    }
    let compared = ((try? metrics()) ?? []).map {
      DriftReport.Comparison(computeUnits: .cpuAndGPU, bitEqual: false, metrics: $0)
    }
    return Report(
      command: .drift, model: model(nil), environment: here,
      input: InputReport(source: .generated, path: nil, case: nil, seed: 0, shape: []),
      drift: DriftReport(repeats: 4, runs: runs, againstCpu: compared), notes: [])
  }
}
