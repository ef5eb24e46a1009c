import Foundation
import HarnessCore
import Testing

@testable import fluxvae_harness

@Suite("Command lines")
struct RequestTests {
  static let helps: [([String], CommandSpec.Name?)] = [
    (["--help"], nil), (["-h"], nil), (["help"], nil),
    (["bench", "--help"], CommandSpec.Name.bench), (["drift", "M", "-h"], .drift),
  ]

  static let misuses: [([String], UsageError)] = [
    ([], UsageError.noCommand),
    (["run"], .unknownCommand("run")),
    (["plan"], .missingArgument("MODEL", command: "plan")),
    (["plan", "A", "B"], .surplusArgument("B")),
    (["speed", "A"], .surplusArgument("A")),
    (["plan", "M", "--io", "x"], .unknownOption("--io", command: "plan")),
    (["plan", "-x", "M"], .unknownOption("-x", command: "plan")),
    (["bench", "M", "--iterations"], .missingValue("--iterations")),
    (["bench", "M", "--iterations="], .missingValue("--iterations")),
    (["bench", "M", "--json=yes"], .needlessValue("--json")),
    (["bench", "M", "--json", "--json"], .repeated("--json")),
    (["bench", "M", "--size=1", "--size=2"], .repeated("--size")),
    (["validate", "M"], .missingOption("--io", command: "validate")),
    (["compile", "M"], .missingOption("--out", command: "compile")),
    (
      ["bench", "M", "--iterations", "0"],
      .badValue(
        option: "--iterations", value: "0", expected: "a whole number from 1 to 1000000")
    ),
    (
      ["bench", "M", "--idle", "nan"],
      .badValue(option: "--idle", value: "nan", expected: "seconds from 0 to 3600")
    ),
    (
      ["bench", "M", "--size", "big"],
      .badValue(option: "--size", value: "big", expected: "pixels, such as 768 or 768x1344")
    ),
    (
      ["plan", "M", "--compute-units", "ane"],
      .badValue(
        option: "--compute-units", value: "ane",
        expected: "cpuOnly, cpuAndGPU, cpuAndNeuralEngine, all, each")
    ),
    (
      ["compile", "M", "--out", "X"],
      .badValue(option: "--out", value: "X", expected: "a path that ends in .mlmodelc")
    ),
  ]

  @Test("defaults are the documented ones")
  func defaults() throws {
    let choice = ModelChoice(path: "M.mlmodelc")
    #expect(
      try Request.parse(["bench", "M.mlmodelc"])
        == .bench(choice, io: nil, Bench.Settings(iterations: 200, warmup: 3), json: false))
    #expect(
      try Request.parse(["drift", "M.mlmodelc"])
        == .drift(choice, io: nil, repeats: 100, json: false))
    #expect(try Request.parse(["plan", "M.mlmodelc"]) == .plan(choice, json: false))
    #expect(try Request.parse(["speed"]) == .speed)
  }

  @Test("every option arrives, before and after the model, with = and without")
  func options() throws {
    let found = try Request.parse([
      "bench", "--iterations=7", "--json", "M", "--warmup", "0", "--size", "768x1344",
      "--function", "hw768", "--compute-units=cpuAndGPU", "--strict-host", "--io", "folder",
      "--idle", "0.5",
    ])
    let choice = ModelChoice(
      path: "M", function: "hw768", size: ImageSize(height: 768, width: 1344), units: [.cpuAndGPU])
    let settings = Bench.Settings(iterations: 7, warmup: 0, idle: 0.5, strictHost: true)
    #expect(found == .bench(choice, io: URL(fileURLWithPath: "folder"), settings, json: true))
  }

  @Test("each is all four sets, cpuOnly first")
  func each() throws {
    let found = try Request.parse(["plan", "M", "--compute-units", "each"])
    let units: [ComputeUnits] = [.cpuOnly, .cpuAndGPU, .cpuAndNeuralEngine, .all]
    #expect(found == .plan(ModelChoice(path: "M", units: units), json: false))
  }

  @Test("after -- everything is a name")
  func dashes() throws {
    #expect(
      try Request.parse(["plan", "--", "--help"])
        == .plan(ModelChoice(path: "--help"), json: false))
  }

  @Test("help of the program and of a command", arguments: helps)
  func help(arguments: [String], command: CommandSpec.Name?) throws {
    #expect(try Request.parse(arguments) == .help(command))
  }

  @Test("what cannot be understood is named", arguments: misuses)
  func misuse(arguments: [String], expected: UsageError) throws {
    let error = try #require(throws: UsageError.self) { try Request.parse(arguments) }
    #expect(error == expected)
    #expect(!error.localizedDescription.contains("\n"))
  }
}
