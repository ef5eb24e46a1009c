/// One command, as data: the parser and the usage text both read it.
struct CommandSpec: Equatable, Sendable {
  /// What a command does.
  enum Name: String, CaseIterable, Sendable {
    case validate
    case bench
    case plan
    case drift
    case compile
    case speed
  }

  let name: Name
  /// What stands for the positional argument; nil where there is none.
  let argument: String?
  let summary: String
  let options: [OptionSpec]
  /// Names of options that must be given.
  let required: [String]
}
