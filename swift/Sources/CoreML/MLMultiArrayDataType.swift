/// The element types of a multi-array. A struct for the reason given at ``MLComputeUnits``.
public struct MLMultiArrayDataType: RawRepresentable, Hashable, Sendable {
  public let rawValue: Int

  public init?(rawValue: Int) { self.rawValue = rawValue }
  private init(_ value: Int) { rawValue = value }

  public static let double = MLMultiArrayDataType(0x10000 | 64)
  public static let float64 = MLMultiArrayDataType(0x10000 | 64)
  public static let float32 = MLMultiArrayDataType(0x10000 | 32)
  public static let float16 = MLMultiArrayDataType(0x10000 | 16)
  public static let float = MLMultiArrayDataType(0x10000 | 32)
  public static let int32 = MLMultiArrayDataType(0x20000 | 32)
}

extension MLMultiArrayDataType {
  /// Bytes of one element; Apple's raw values hold the width in bits in their low byte.
  var byteCount: Int { (rawValue & 0xFF) / 8 }

  /// Whether this is one of the types declared above.
  var isKnown: Bool { [.double, .float32, .float16, .int32].contains(self) }

  /// The name the engine and NumPy use for this type.
  var engineName: String {
    switch self {
    case .double: "float64"
    case .float32: "float32"
    case .float16: "float16"
    default: "int32"
    }
  }

  /// The type with the engine's name, or nil for a name this module does not know.
  init?(engineName: String) {
    switch engineName {
    case "float64": self = .double
    case "float32": self = .float32
    case "float16": self = .float16
    case "int32": self = .int32
    default: return nil
    }
  }
}
