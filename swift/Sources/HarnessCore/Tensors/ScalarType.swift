/// The scalar types that arrays of a decoder can have, by the names that reports and manifests use.
public enum ScalarType: String, Codable, Sendable, CaseIterable {
  case float16
  case float32
  case float64
  case int32

  /// Size of one scalar in bytes.
  public var byteCount: Int {
    switch self {
    case .float16: 2
    case .float32, .int32: 4
    case .float64: 8
    }
  }
}
