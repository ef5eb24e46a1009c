import Foundation
import HarnessCore

/// `fluxvae-harness`: parse, call one command of HarnessCore, print.
@main
enum Main {
  static func main() async {
    exit(await run(Array(ProcessInfo.processInfo.arguments.dropFirst())).rawValue)
  }

  /// Exit codes, the same as those of `fluxvae`.
  enum Exit: Int32 {
    case done = 0
    case error = 1
    case usage = 2
    case failed = 3
  }

  private static func run(_ arguments: [String]) async -> Exit {
    do {
      return try await answer(try Request.parse(arguments))
    } catch let error where error is UsageError || (error as? BundleError)?.isUsage == true {
      complain(error)
      return .usage
    } catch {
      complain(error)
      return .error
    }
  }

  private static func answer(_ request: Request) async throws -> Exit {
    switch request {
    case .help(let command):
      say(Usage.text(command))
    case .validate(let choice, let io, let json):
      let report = try await Validate.run(choice, io: io, progress: progress)
      try show(report, json: json)
      if report.validation?.missedLimit == true { return .failed }
      return complaints(report)
    case .bench(let choice, let io, let settings, let json):
      let report = try await Bench.run(choice, io: io, settings: settings, progress: progress)
      try show(report, json: json)
      return complaints(report)
    case .plan(let choice, let json):
      let report = try await Plan.run(choice, progress: progress)
      try show(report, json: json)
      if let plan = report.plan, !plan.available {
        complain("there is no compute plan: \(plan.reason ?? "the system gave no reason")")
        return .error
      }
      return complaints(report)
    case .drift(let choice, let io, let repeats, let json):
      let report = try await Drift.run(choice, io: io, repeats: repeats, progress: progress)
      try show(report, json: json)
      return complaints(report)
    case .compile(let package, let out, let overwrite):
      say(try await Compile.run(package, to: out, overwrite: overwrite).path)
    case .speed:
      say(try CopySpeed.measure().lines.joined(separator: "\n"))
    }
    return .done
  }

  /// One line for each set of compute units that gave no result.
  private static func complaints(_ report: Report) -> Exit {
    for failed in report.failures {
      complain("\(report.command.rawValue) on \(failed.computeUnits.rawValue): \(failed.failure)")
    }
    return report.failures.isEmpty ? .done : .error
  }

  private static func show(_ report: Report, json: Bool) throws {
    if json {
      say(String(decoding: try report.json(), as: UTF8.self))
    } else {
      say(ReportText.lines(report).joined(separator: "\n"))
    }
  }

  private static func say(_ text: String) {
    FileHandle.standardOutput.write(Data((text + "\n").utf8))
  }

  private static func progress(_ text: String) {
    FileHandle.standardError.write(Data((text + "\n").utf8))
  }

  private static func complain(_ error: any Error) { complain(error.localizedDescription) }

  /// One line, whatever the reason held.
  private static func complain(_ text: String) {
    let line = text.split(whereSeparator: \.isNewline).joined(separator: " ")
    FileHandle.standardError.write(Data("error: \(line)\n".utf8))
  }
}
