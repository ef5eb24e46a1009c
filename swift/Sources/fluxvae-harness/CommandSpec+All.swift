import HarnessCore

extension CommandSpec {
  /// Every command, in the order of the usage text.
  static let all: [CommandSpec] = [
    CommandSpec(
      name: .validate, argument: "MODEL",
      summary: "hold a model's output against a bundle of fluxvae export-io",
      options: [.io, .function, .computeUnits, .json], required: ["--io"]),
    CommandSpec(
      name: .bench, argument: "MODEL", summary: "time loading and predictions",
      options: [
        .io, .iterations, .warmup, .idle, .function, .size, .computeUnits, .strictHost, .json,
      ], required: []),
    CommandSpec(
      name: .plan, argument: "MODEL", summary: "which operation Core ML means to run where",
      options: [.function, .computeUnits, .json], required: []),
    CommandSpec(
      name: .drift, argument: "MODEL", summary: "are repeated outputs the same, bit by bit",
      options: [.io, .repeats, .function, .size, .computeUnits, .json], required: []),
    CommandSpec(
      name: .compile, argument: "MODEL.mlpackage",
      summary: "let Core ML compile a package into a stable place (macOS)",
      options: [.out, .overwrite], required: ["--out"]),
    CommandSpec(
      name: .speed, argument: nil,
      summary: "how fast a padded output is copied, beside memcpy",
      options: [], required: []),
  ]

  static func named(_ text: String) -> CommandSpec? { all.first { $0.name.rawValue == text } }
}

extension OptionSpec {
  static let io = OptionSpec(
    name: "--io", value: "DIR", help: "folder with input.bin, output.bin and manifest.json")
  static let function = OptionSpec(
    name: "--function", value: "NAME", help: "function of a model that has several")
  static let size = OptionSpec(
    name: "--size", value: "HxW", help: "image size, for a model that takes several")
  static let computeUnits = OptionSpec(
    name: "--compute-units", value: "UNITS",
    help: (ComputeUnits.allCases.map(\.rawValue) + ["each"]).joined(separator: ", ")
      + " (default \(Request.defaultUnits.rawValue))")
  static let iterations = OptionSpec(
    name: "--iterations", value: "N",
    help: "timed predictions (default \(Bench.Settings().iterations))")
  static let warmup = OptionSpec(
    name: "--warmup", value: "N",
    help: "predictions before them, kept as first calls (default and least "
      + "\(Bench.Settings().warmup))")
  static let idle = OptionSpec(
    name: "--idle", value: "SECONDS",
    help: "pause, then first calls again (default \(Int(FirstCalls.sleepsAfter)) with a "
      + "Neural Engine, else 0)")
  static let repeats = OptionSpec(
    name: "--repeats", value: "N", help: "predictions (default \(Request.defaultRepeats))")
  static let strictHost = OptionSpec(
    name: "--strict-host", value: nil,
    help: "refuse a host that is hot, loaded, on battery or saving power")
  static let json = OptionSpec(name: "--json", value: nil, help: "print the report as JSON")
  static let out = OptionSpec(name: "--out", value: "PATH.mlmodelc", help: "the compiled model")
  static let overwrite = OptionSpec(
    name: "--overwrite", value: nil, help: "replace what is there")
}
