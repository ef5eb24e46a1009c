/// Where it ran.
public struct EnvironmentReport: Codable, Equatable, Sendable {
  /// Who executes models behind Core ML's API.
  public enum Backend: String, Codable, Sendable {
    /// Apple's framework.
    case coreml
    /// fluxvae's reference executor, on Linux.
    case reference
  }

  public let backend: Backend
  public let os: String
  public let osVersion: String
  @Nullable public var osBuild: String?
  public let arch: String
  @Nullable public var chip: String?
  public let cores: Int
  @Nullable public var memoryBytes: Int?
  public let swift: String
  public let devices: [String]
  public let before: Moment
  public let after: Moment
}
