/// What a model declares: features in the order of their names, and its user-defined metadata.
public struct Interface: Equatable, Sendable {
  public let inputs: [Feature]
  public let outputs: [Feature]
  public let metadata: [String: String]

  func input(named name: String) -> Feature? { inputs.first { $0.name == name } }
  func output(named name: String) -> Feature? { outputs.first { $0.name == name } }
}
