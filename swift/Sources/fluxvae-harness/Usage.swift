/// Usage text, generated from the commands' data.
enum Usage {
  /// Of one command, or of the program.
  static func text(_ name: CommandSpec.Name?) -> String {
    guard let name, let spec = CommandSpec.named(name.rawValue) else { return overview }
    var lines = synopsis(spec) + ["", sentence(spec.summary)]
    if !spec.options.isEmpty { lines.append("") }
    lines += table(
      spec.options.map { option in
        ([option.name] + [option.value].compactMap { $0 }).joined(separator: " ")
      }, spec.options.map(\.help))
    return lines.joined(separator: "\n")
  }

  private static var overview: String {
    let lines =
      ["usage: fluxvae-harness COMMAND [options]", ""]
      + table(CommandSpec.all.map(\.name.rawValue), CommandSpec.all.map(\.summary))
      + [
        "", "fluxvae-harness COMMAND --help tells a command's options.",
        "Exit codes: 0 done, 1 error, 2 wrong usage, 3 validation failed.",
      ]
    return lines.joined(separator: "\n")
  }

  /// The usage line, broken before 100 columns.
  private static func synopsis(_ spec: CommandSpec) -> [String] {
    let start = "usage: fluxvae-harness \(spec.name.rawValue)"
    let options = spec.options.map { option in
      let word = ([option.name] + [option.value].compactMap { $0 }).joined(separator: " ")
      return spec.required.contains(option.name) ? word : "[\(word)]"
    }
    var lines = [start]
    for word in [spec.argument].compactMap({ $0 }) + options {
      let last = lines[lines.count - 1]
      if last.count + 1 + word.count <= 100 {
        lines[lines.count - 1] = last + " " + word
      } else {
        lines.append(String(repeating: " ", count: start.count + 1) + word)
      }
    }
    return lines
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
