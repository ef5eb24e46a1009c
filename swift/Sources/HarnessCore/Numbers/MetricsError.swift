import Foundation

/// Two arrays that cannot be compared.
public enum MetricsError: Error, Equatable, Sendable {
  case shapes(candidate: [Int], reference: [Int])
}

extension MetricsError: LocalizedError {
  /// One sentence: what was expected and what came.
  public var errorDescription: String? {
    switch self {
    case .shapes(let candidate, let reference):
      "the model gave an array of shape \(candidate), and the reference has \(reference)"
    }
  }
}
