import Foundation

/// Arguments that cannot be understood. Exit code 2.
enum UsageError: Error, Equatable, Sendable {
  case noCommand
  case unknownCommand(String)
  case unknownOption(String, command: String)
  case missingValue(String)
  case needlessValue(String)
  case repeated(String)
  case missingOption(String, command: String)
  case missingArgument(String, command: String)
  case surplusArgument(String)
  case badValue(option: String, value: String, expected: String)
}

extension UsageError: LocalizedError {
  /// One sentence: what is wrong and what would be right.
  var errorDescription: String? {
    switch self {
    case .noCommand:
      "a command is missing: \(CommandSpec.Name.allCases.map(\.rawValue).joined(separator: ", "))"
    case .unknownCommand(let name):
      "there is no command \(name), only "
        + CommandSpec.Name.allCases.map(\.rawValue).joined(separator: ", ")
    case .unknownOption(let option, let command):
      "\(command) has no option \(option); see fluxvae-harness \(command) --help"
    case .missingValue(let option): "\(option) needs a value"
    case .needlessValue(let option): "\(option) takes no value"
    case .repeated(let option): "\(option) is given twice"
    case .missingOption(let option, let command): "\(command) needs \(option)"
    case .missingArgument(let argument, let command): "\(command) needs a \(argument)"
    case .surplusArgument(let argument): "the argument \(argument) is one too many"
    case .badValue(let option, let value, let expected):
      "\(option) is \(value), expected \(expected)"
    }
  }
}
