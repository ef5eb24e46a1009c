import Foundation

/// What one call of the harness found: the only thing it gives back, written as JSON.
///
/// `docs/harness.schema.json` describes every field. Keys are the properties in snake case.
public struct Report: Codable, Equatable, Sendable {
  /// The commands that give a report.
  public enum Command: String, Codable, Sendable {
    case validate, bench, plan, drift
  }

  public var format = "fluxvae-harness"
  public var version = 2
  public let command: Command
  public let model: ModelReport
  public let environment: EnvironmentReport
  @Nullable public var input: InputReport? = nil
  @Nullable public var runs: [BenchRun]? = nil
  @Nullable public var validation: ValidationReport? = nil
  @Nullable public var plan: PlanReport? = nil
  @Nullable public var drift: DriftReport? = nil
  /// Sets of compute units that gave no result; empty for a plan that is not available at all.
  public var failures: [UnitFailure] = []
  public let notes: [String]

  /// One JSON object with sorted keys.
  public func json() throws -> Data {
    let encoder = JSONEncoder()
    encoder.keyEncodingStrategy = .convertToSnakeCase
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
    return try encoder.encode(self)
  }
}

extension Report {
  /// The inverse of `json()`.
  public init(json: Data) throws {
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    self = try decoder.decode(Report.self, from: json)
  }
}
