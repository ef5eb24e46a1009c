import Foundation

/// A plan that holds nothing to list.
public enum PlanFault: Error, Equatable, Sendable {
  case structure
}

extension PlanFault: LocalizedError {
  /// One sentence: what was expected and what came.
  public var errorDescription: String? {
    "the model is neither an ML Program nor a neural network, so that its plan lists no operations"
  }
}
