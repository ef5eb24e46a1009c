import Foundation
import HarnessCore

/// What the user asked for, every value understood.
enum Request: Equatable, Sendable {
  case help(CommandSpec.Name?)
  case validate(ModelChoice, io: URL, json: Bool)
  case bench(ModelChoice, io: URL?, Bench.Settings, json: Bool)
  case plan(ModelChoice, json: Bool)
  case drift(ModelChoice, io: URL?, repeats: Int, json: Bool)
  case compile(URL, out: URL, overwrite: Bool)
  case speed

  static let defaultUnits = ComputeUnits.all
  static let defaultRepeats = 100

  /// Understands a command line without the program's name.
  ///
  /// - Throws: `UsageError`.
  static func parse(_ arguments: [String]) throws(UsageError) -> Request {
    guard let first = arguments.first else { throw .noCommand }
    if ["--help", "-h", "help"].contains(first) { return .help(nil) }
    guard let spec = CommandSpec.named(first) else { throw .unknownCommand(first) }
    let rest = Array(arguments.dropFirst())
    let options = rest.prefix { $0 != "--" }
    if options.contains("--help") || options.contains("-h") { return .help(spec.name) }
    return try Request(try Invocation(spec, arguments: rest))
  }

  private init(_ invocation: Invocation) throws(UsageError) {
    let path = invocation.argument ?? ""
    let json = invocation.switches.contains("--json")
    let io = invocation.values["--io"].map { URL(fileURLWithPath: $0) }
    switch invocation.command {
    case .validate:
      guard let io else { throw .missingOption("--io", command: "validate") }
      self = .validate(try invocation.choice(), io: io, json: json)
    case .bench:
      let settings = Bench.Settings(
        iterations: try invocation.number("--iterations", least: 1) ?? Bench.Settings().iterations,
        warmup: try invocation.number("--warmup", least: 0) ?? Bench.Settings().warmup,
        idle: try invocation.seconds("--idle"),
        strictHost: invocation.switches.contains("--strict-host"))
      self = .bench(try invocation.choice(), io: io, settings, json: json)
    case .plan:
      self = .plan(try invocation.choice(), json: json)
    case .drift:
      let repeats = try invocation.number("--repeats", least: 2) ?? Self.defaultRepeats
      self = .drift(try invocation.choice(), io: io, repeats: repeats, json: json)
    case .compile:
      let out = invocation.values["--out"] ?? ""
      guard out.hasSuffix(".mlmodelc") else {
        throw .badValue(option: "--out", value: out, expected: "a path that ends in .mlmodelc")
      }
      self = .compile(
        URL(fileURLWithPath: path), out: URL(fileURLWithPath: out),
        overwrite: invocation.switches.contains("--overwrite"))
    case .speed:
      self = .speed
    }
  }
}

extension Invocation {
  fileprivate func choice() throws(UsageError) -> ModelChoice {
    ModelChoice(
      path: argument ?? "", function: values["--function"], size: try size(), units: try units())
  }

  fileprivate func number(_ option: String, least: Int) throws(UsageError) -> Int? {
    guard let text = values[option] else { return nil }
    guard let number = Int(text), number >= least, number <= 1_000_000 else {
      throw .badValue(
        option: option, value: text, expected: "a whole number from \(least) to 1000000")
    }
    return number
  }

  fileprivate func seconds(_ option: String) throws(UsageError) -> Double? {
    guard let text = values[option] else { return nil }
    guard let seconds = Double(text), (0...3600).contains(seconds) else {
      throw .badValue(option: option, value: text, expected: "seconds from 0 to 3600")
    }
    return seconds
  }

  private func size() throws(UsageError) -> ImageSize? {
    guard let text = values["--size"] else { return nil }
    guard let size = ImageSize(text) else {
      throw .badValue(option: "--size", value: text, expected: "pixels, such as 768 or 768x1344")
    }
    return size
  }

  private func units() throws(UsageError) -> [ComputeUnits] {
    guard let text = values["--compute-units"] else { return [Request.defaultUnits] }
    if text == "each" { return ComputeUnits.allCases }
    guard let units = ComputeUnits(rawValue: text) else {
      let known = ComputeUnits.allCases.map(\.rawValue) + ["each"]
      throw .badValue(
        option: "--compute-units", value: text, expected: known.joined(separator: ", "))
    }
    return [units]
  }
}
