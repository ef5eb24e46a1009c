@preconcurrency import CoreML
import Foundation

/// `drift`: the same input again and again, and on every set of compute units.
public enum Drift {
  /// - Parameters:
  ///   - folder: of a bundle whose input is fed; nil makes numbers up.
  ///   - progress: gets a line when something slow starts.
  /// - Throws: as `Validate.run`. Drift is no error but a finding.
  public static func run(
    _ choice: ModelChoice, io folder: URL?, repeats: Int, loader: ModelLoader = .coreML,
    progress: (String) -> Void
  ) async throws -> Report {
    let before = Moment.now()
    let bundle = try folder.map { try IOBundle(folder: $0) }
    let each = try await EachUnit(choice.units) { units in
      progress("drift on \(units.rawValue): \(repeats) predictions")
      let (model, shapes) = try await choice.open(bundle, units: units, loader: loader)
      let feed = try Feed(bundle: bundle, interface: model.interface, shapes: shapes)
      let (run, first) = try observe(model, feed, repeats: max(repeats, 1))
      let peak = try ArtifactRecord(metadata: model.interface.metadata)?.peak ?? 1
      return (run: run, outputs: first, described: Described(model, feed), peak: peak)
    }
    let (described, peak) = (each.results[0].described, each.results[0].peak)
    let compared = try compare(each.results.map { ($0.run.computeUnits, $0.outputs) }, peak: peak)
    return Report(
      command: .drift, model: await choice.report(described.function, described.interface),
      environment: .here(before: before, after: .now()), input: described.input,
      drift: DriftReport(
        repeats: max(repeats, 1), runs: each.results.map(\.run), againstCpu: compared),
      failures: each.failures, notes: HostProbe.notes(choice.units) + described.notes)
  }

  /// Not async, so that the synchronous `prediction` is used, as in bench.
  private static func observe(
    _ model: LoadedModel, _ feed: Feed, repeats: Int
  ) throws -> (DriftReport.Run, [Tensor]) {
    let input = try model.provider(feed.tensors)
    let first = try model.outputs(input)
    var tally = DriftTally(first: first)
    for _ in 1..<max(repeats, 1) { try tally.add(try model.outputs(input)) }
    return (tally.run(model.units), first)
  }

  /// The first outputs against cpuOnly's; nothing where cpuOnly was not run.
  static func compare(
    _ firsts: [(units: ComputeUnits, outputs: [Tensor])], peak: Double = 1
  ) throws -> [DriftReport.Comparison] {
    guard let cpu = firsts.first(where: { $0.units == .cpuOnly })?.outputs else { return [] }
    return try firsts.filter { $0.units != .cpuOnly }.compactMap { units, outputs in
      let metrics = try zip(outputs, cpu).map { try Metrics($0, against: $1, peak: peak) }
      guard let worst = metrics.max(by: { ($0.maxAbs ?? .infinity) < ($1.maxAbs ?? .infinity) })
      else { return nil }
      return .init(computeUnits: units, bitEqual: outputs == cpu, metrics: worst)
    }
  }
}
