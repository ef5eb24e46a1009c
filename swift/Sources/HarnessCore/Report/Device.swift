/// A device of a compute plan.
public enum Device: String, Codable, Sendable {
  case cpu
  case gpu
  case neuralEngine
  case other
}
