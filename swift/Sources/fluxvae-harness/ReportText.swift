import Foundation
import HarnessCore

/// A report as plain text for people; programs read the JSON.
enum ReportText {
  static func lines(_ report: Report) -> [String] {
    var lines = ["\(report.command.rawValue) \(report.model.path)" + function(report)]
    let place = report.environment
    lines.append("on \(place.chip ?? place.arch), \(place.os) \(place.osVersion)")
    if let runs = report.runs { lines += runs.flatMap(bench) }
    if let validation = report.validation { lines += validate(validation) }
    if let plan = report.plan { lines += plan.results.flatMap(self.plan) }
    if let drift = report.drift { lines += self.drift(drift) }
    lines += report.failures.map { "\($0.computeUnits.rawValue): FAILED: \($0.failure)" }
    return lines + report.notes.map { "note: \($0)" }
  }

  private static func function(_ report: Report) -> String {
    report.model.function.map { ", function \($0)" } ?? ""
  }

  private static func bench(_ run: BenchRun) -> [String] {
    let latency = run.latency
    return [
      "\(run.computeUnits.rawValue): load \(ms(run.load.firstMs)), again \(ms(run.load.secondMs))",
      "  first calls, in none of the figures below: " + firstCalls(run.firstCalls),
      "  \(latency.count) predictions: median \(ms(latency.median)), mean \(ms(latency.mean)), "
        + "p10 \(ms(latency.p10)), p90 \(ms(latency.p90))",
      "  p95 \(ms(latency.p95)), p99 \(ms(latency.p99)), min \(ms(latency.min)), "
        + "max \(ms(latency.max)), peak memory \(memory(run.peakMemoryBytes))",
    ]
  }

  private static func firstCalls(_ calls: FirstCalls) -> String {
    func list(_ times: [Double]) -> String { times.map(ms).joined(separator: ", ") }
    let afterLoad = "after loading \(list(calls.afterLoadMs))"
    guard calls.idleS > 0 else { return afterLoad }
    return afterLoad + String(format: "; after %g s idle ", calls.idleS) + list(calls.afterIdleMs)
  }

  private static func validate(_ validation: ValidationReport) -> [String] {
    let bound = "\(validation.limit.metric.rawValue) \(validation.limit.bound)"
    return validation.results.map { result in
      "\(result.computeUnits.rawValue): \(result.verdict.rawValue), \(metrics(result.metrics))"
    } + ["limit for \(validation.precision.rawValue): \(bound); \(validation.verdict.rawValue)"]
      + validation.notes.map { "note: \($0)" }
  }

  private static func plan(_ result: PlanReport.Result) -> [String] {
    let devices = counts(result.devices)
    var lines = [
      "\(result.computeUnits.rawValue), \(result.function): \(result.operations) operations "
        + "(\(devices)), \(result.constants) constants"
    ]
    lines += result.types.map { "  \($0.count) \($0.operator): \(counts($0.devices))" }
    lines += result.leftNeuralEngine.map { index in
      let operation = result.ops[index]
      return "  not on the Neural Engine: \(operation.operator) \(operation.output ?? "?")"
    }
    return lines
  }

  private static func drift(_ drift: DriftReport) -> [String] {
    drift.runs.map { run in
      "\(run.computeUnits.rawValue): "
        + (run.bitEqual
          ? "\(drift.repeats) predictions with the same bits"
          : "\(run.differing) of \(drift.repeats) differ from the first, by up to "
            + number(run.maxAbs))
    }
      + drift.againstCpu.map { comparison in
        "\(comparison.computeUnits.rawValue) against cpuOnly: "
          + (comparison.bitEqual ? "the same bits" : metrics(comparison.metrics))
      }
  }

  private static func metrics(_ metrics: Metrics) -> String {
    if metrics.nan + metrics.inf > 0 { return "\(metrics.nan) NaN, \(metrics.inf) infinite" }
    let psnr = metrics.psnrDb.map { String(format: "%.2f dB", $0) } ?? "equal"
    return "\(psnr), max \(number(metrics.maxAbs)), MAE \(number(metrics.mae))"
  }

  private static func counts(_ counts: [String: Int]) -> String {
    counts.sorted { $0.key < $1.key }.map { "\($0.value) \($0.key)" }.joined(separator: ", ")
  }

  private static func number(_ value: Double?) -> String {
    value.map { String(format: "%.3g", $0) } ?? "not finite"
  }

  private static func ms(_ value: Double) -> String { String(format: "%.2f ms", value) }

  private static func memory(_ bytes: Int?) -> String {
    bytes.map { String(format: "%.0f MB", Double($0) / 1e6) } ?? "not known"
  }
}
