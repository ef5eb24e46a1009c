extension MLModelStructure {
  /// An ML Program.
  public struct Program: Sendable {
    public let functions: [String: Function]

    /// A function of the program.
    public struct Function: Sendable {
      public let inputs: [NamedValueType]
      public let block: Block
    }

    /// Operations in order.
    public struct Block: Sendable {
      public let inputs: [NamedValueType]
      public let outputNames: [String]
      public let operations: [Operation]
    }

    /// An operation; `operatorName` carries the operation set, as in `ios18.conv`.
    public struct Operation: Sendable {
      public let operatorName: String
      public let inputs: [String: Argument]
      public let outputs: [NamedValueType]
      public let blocks: [Block]
    }

    /// A name and a type.
    public struct NamedValueType: Sendable {
      public let name: String
      public let type: ValueType
    }

    /// An argument of an operation.
    public struct Argument: Sendable {
      public let bindings: [Binding]
    }

    /// What an argument is bound to. The extra case is explained at ``MLComputeDevice``.
    public enum Binding: Sendable {
      case value(Value)
      case name(String)
      case _notListed
    }

    /// The type of a variable.
    public struct ValueType: Sendable {}

    /// A constant.
    public struct Value: Sendable {}
  }
}
