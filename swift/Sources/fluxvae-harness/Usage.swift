/// Usage text, generated from the commands' data.
enum Usage {
  /// Of one command, or of the program.
  static func text(_ name: CommandSpec.Name?) -> String {
    guard let name, let spec = CommandSpec.named(name.rawValue) else { return overview }
    var lines = ["usage: " + line(spec), "", sentence(spec.summary)]
    if !spec.options.isEmpty { lines.append("") }
    lines += table(spec.options.map { option in
      ([option.name] + [option.value].compactMap { $0 }).joined(separator: " ")
    }, spec.options.map(\.help))
    return lines.joined(separator: "\n")
  }

  private static var overview: String {
    let lines = ["usage: fluxvae-harness COMMAND [options]", ""]
      + table(CommandSpec.all.map(\.name.rawValue), CommandSpec.all.map(\.summary))
      + [
        "", "fluxvae-harness COMMAND --help tells a command's options.",
        "Exit codes: 0 done, 1 error, 2 wrong usage, 3 validation failed.",
      ]
    return lines.joined(separator: "\n")
  }

  private static func line(_ spec: CommandSpec) -> String {
    var words = ["fluxvae-harness", spec.name.rawValue] + [spec.argument].compactMap { $0 }
    for option in spec.options {
      let word = ([option.name] + [option.value].compactMap { $0 }).joined(separator: " ")
      words.append(spec.required.contains(option.name) ? word : "[\(word)]")
    }
    return words.joined(separator: " ")
  }

  private static func sentence(_ text: String) -> String {
    text.prefix(1).uppercased() + text.dropFirst() + "."
  }

  private static func table(_ left: [String], _ right: [String]) -> [String] {
    let width = left.map(\.count).max() ?? 0
    return zip(left, right).map { name, help in
      "  " + name + String(repeating: " ", count: width - name.count + 2) + help
    }
  }
}
