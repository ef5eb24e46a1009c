/// Arguments sorted by the commands' data, their values not yet understood.
struct Invocation: Equatable, Sendable {
  let command: CommandSpec.Name
  let argument: String?
  let values: [String: String]
  let switches: Set<String>

  /// Sorts the arguments after the command's name.
  ///
  /// Options stand before or after the argument, as `--name value` or `--name=value`; after `--`
  /// everything is an argument.
  ///
  /// - Throws: `UsageError`.
  init(_ spec: CommandSpec, arguments: [String]) throws(UsageError) {
    var positional: [String] = []
    var values: [String: String] = [:]
    var switches: Set<String> = []
    var rest = arguments[...]
    while let text = rest.popFirst() {
      if text == "--" {
        positional += rest
        break
      }
      guard text.hasPrefix("-"), text != "-" else {
        positional.append(text)
        continue
      }
      let parts = text.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      let name = String(parts[0])
      guard let option = spec.options.first(where: { $0.name == name }) else {
        throw .unknownOption(name, command: spec.name.rawValue)
      }
      guard values[name] == nil, !switches.contains(name) else { throw .repeated(name) }
      if option.value == nil {
        guard parts.count == 1 else { throw .needlessValue(name) }
        switches.insert(name)
      } else {
        guard let value = parts.count == 2 ? String(parts[1]) : rest.popFirst(), !value.isEmpty
        else { throw .missingValue(name) }
        values[name] = value
      }
    }
    for name in spec.required where values[name] == nil && !switches.contains(name) {
      throw .missingOption(name, command: spec.name.rawValue)
    }
    if let argument = spec.argument, positional.isEmpty {
      throw .missingArgument(argument, command: spec.name.rawValue)
    }
    let allowed = spec.argument == nil ? 0 : 1
    if positional.count > allowed { throw .surplusArgument(positional[allowed]) }
    command = spec.name
    argument = positional.first
    self.values = values
    self.switches = switches
  }
}
