/// The host at one moment; nil is what this system does not tell.
public struct Moment: Codable, Equatable, Sendable {
  /// `ProcessInfo.ThermalState` by name.
  public enum ThermalState: String, Codable, Sendable {
    case nominal
    case fair
    case serious
    case critical
  }

  /// What the machine runs from.
  public enum PowerSource: String, Codable, Sendable {
    case ac
    case battery
    case ups
  }

  public let time: String
  @Nullable public var thermalState: ThermalState?
  @Nullable public var lowPowerMode: Bool?
  @Nullable public var powerSource: PowerSource?
  @Nullable public var loadAverage: [Double]?
  @Nullable public var processMemoryBytes: Int?
}
