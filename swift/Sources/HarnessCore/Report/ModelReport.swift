/// What was loaded.
public struct ModelReport: Codable, Equatable, Sendable {
  public let path: String
  @Nullable public var functions: [String]?
  @Nullable public var function: String?
  public let inputs: [Feature]
  public let outputs: [Feature]
  public let metadata: [String: String]

  init(path: String, functions: [String]?, function: String?, interface: Interface) {
    self.path = path
    self.functions = functions
    self.function = function
    inputs = interface.inputs
    outputs = interface.outputs
    metadata = interface.metadata
  }
}
