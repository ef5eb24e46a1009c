/// One option of a command, as data: the parser and the usage text both read it.
struct OptionSpec: Equatable, Sendable {
  /// With its dashes.
  let name: String
  /// What stands for the value in the usage text; nil for a switch.
  let value: String?
  let help: String
}
