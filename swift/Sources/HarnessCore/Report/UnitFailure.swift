/// Why there is no result for one set of compute units; the results of the others stand.
public struct UnitFailure: Codable, Equatable, Sendable {
  public let computeUnits: ComputeUnits
  public let failure: String
}
