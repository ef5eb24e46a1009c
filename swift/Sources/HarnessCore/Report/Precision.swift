/// Compute precision of a model.
public enum Precision: String, Codable, Sendable {
  case float16
  case float32
}
