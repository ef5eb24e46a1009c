/// One bundle through the model.
public struct ValidationReport: Codable, Equatable, Sendable {
  /// Whether the limit holds.
  public enum Verdict: String, Codable, Sendable {
    case pass
    case fail
  }

  /// One prediction, compared.
  public struct Result: Codable, Equatable, Sendable {
    public let computeUnits: ComputeUnits
    public let verdict: Verdict
    public let metrics: Metrics
  }

  /// `pass` when the limit holds on every set of compute units that was asked for.
  public let verdict: Verdict
  public let variant: String
  public let size: String
  public let `case`: String
  public let precision: Precision
  public let limit: Limit
  public let results: [Result]
  public let notes: [String]

  /// Whether an output missed the limit, which a set of compute units without an output does not.
  public var missedLimit: Bool { results.contains { $0.verdict == .fail } }
}
