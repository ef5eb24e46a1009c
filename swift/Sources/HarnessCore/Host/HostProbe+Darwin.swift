#if canImport(Darwin)
  import Darwin
  import Foundation
  import IOKit.ps

  /// Facts about a Mac. Not run on one by the authors.
  enum HostProbe {
    static let backend = EnvironmentReport.Backend.coreml
    static let os = "macOS"

    static var osVersion: String {
      let version = ProcessInfo.processInfo.operatingSystemVersion
      return "\(version.majorVersion).\(version.minorVersion).\(version.patchVersion)"
    }

    static var osBuild: String? { control("kern.osversion") }
    static var chip: String? { control("machdep.cpu.brand_string") }

    static var thermalState: Moment.ThermalState? {
      switch ProcessInfo.processInfo.thermalState {
      case .nominal: .nominal
      case .fair: .fair
      case .serious: .serious
      case .critical: .critical
      @unknown default: nil
      }
    }

    static var lowPowerMode: Bool? { ProcessInfo.processInfo.isLowPowerModeEnabled }

    static var powerSource: Moment.PowerSource? {
      guard let blob = IOPSCopyPowerSourcesInfo()?.takeRetainedValue(),
        let name = IOPSGetProvidingPowerSourceType(blob)?.takeUnretainedValue()
      else { return nil }
      switch name as String {
      case "AC Power": return .ac
      case "Battery Power": return .battery
      case "UPS Power": return .ups
      default: return nil
      }
    }

    /// Physical footprint of this process, as Activity Monitor shows it.
    static var processMemory: Int? { footprint().map { Int($0.ri_phys_footprint) } }

    /// Largest physical footprint this process ever had.
    static var peakMemory: Int? { footprint().map { Int($0.ri_lifetime_max_phys_footprint) } }

    static var loadAverage: [Double]? {
      var averages = [0.0, 0, 0]
      return getloadavg(&averages, 3) == 3 ? averages : nil
    }

    private static func footprint() -> rusage_info_v4? {
      var usage = rusage_info_v4()
      let status = withUnsafeMutablePointer(to: &usage) { pointer in
        pointer.withMemoryRebound(to: rusage_info_t?.self, capacity: 1) {
          proc_pid_rusage(getpid(), RUSAGE_INFO_V4, $0)
        }
      }
      return status == 0 ? usage : nil
    }

    private static func control(_ name: String) -> String? {
      var size = 0
      guard sysctlbyname(name, nil, &size, nil, 0) == 0, size > 1 else { return nil }
      var text = [UInt8](repeating: 0, count: size)
      guard sysctlbyname(name, &text, &size, nil, 0) == 0 else { return nil }
      return String(decoding: text.prefix { $0 != 0 }, as: UTF8.self)
    }
  }
#endif
