#if os(Linux)
  import Foundation
  import Glibc

  /// Facts about a Linux machine; thermal state and power are not asked for there.
  enum HostProbe {
    static let backend = EnvironmentReport.Backend.reference
    static let os = "Linux"

    static var osVersion: String {
      value(of: "PRETTY_NAME", separator: "=", in: "/etc/os-release")?
        .trimmingCharacters(in: CharacterSet(charactersIn: "\"")) ?? "unknown"
    }

    static var osBuild: String? {
      line("/proc/sys/kernel/osrelease")
    }

    static var chip: String? { value(of: "model name", separator: ":", in: "/proc/cpuinfo") }

    static let thermalState: Moment.ThermalState? = nil
    static let lowPowerMode: Bool? = nil
    static let powerSource: Moment.PowerSource? = nil

    /// Resident set of this process.
    static var processMemory: Int? { kilobytes("VmRSS") }

    /// Largest resident set this process ever had; the executor is another process.
    static var peakMemory: Int? { kilobytes("VmHWM") }

    static var loadAverage: [Double]? {
      var averages = [0.0, 0, 0]
      return getloadavg(&averages, 3) == 3 ? averages : nil
    }

    private static func kilobytes(_ key: String) -> Int? {
      value(of: key, separator: ":", in: "/proc/self/status")
        .flatMap { $0.split(separator: " ").first }
        .flatMap { Int($0) }
        .map { $0 * 1024 }
    }

    private static func line(_ path: String) -> String? {
      (try? String(contentsOfFile: path, encoding: .utf8))?
        .trimmingCharacters(in: .whitespacesAndNewlines)
    }

    private static func value(of key: String, separator: Character, in path: String) -> String? {
      let lines = (line(path) ?? "").split(whereSeparator: \.isNewline)
      for line in lines {
        let parts = line.split(separator: separator, maxSplits: 1)
        if parts.count == 2, parts[0].trimmingCharacters(in: .whitespaces) == key {
          return parts[1].trimmingCharacters(in: .whitespaces)
        }
      }
      return nil
    }
  }
#endif
