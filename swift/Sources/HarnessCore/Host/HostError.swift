import Foundation

/// A host on which measuring was refused.
public enum HostError: Error, Equatable, Sendable {
  case noisy([String])
}

extension HostError: LocalizedError {
  /// One sentence: what is wrong and what to do next.
  public var errorDescription: String? {
    switch self {
    case .noisy(let complaints):
      "the host is too noisy to measure on: \(complaints.joined(separator: "; ")); wait, or leave "
        + "--strict-host out"
    }
  }
}
