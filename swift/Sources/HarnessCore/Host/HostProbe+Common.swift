import CoreML
import Foundation

extension HostProbe {
  static var arch: String {
    #if arch(arm64)
      "arm64"
    #elseif arch(x86_64)
      "x86_64"
    #else
      "other"
    #endif
  }

  /// The language version and the build configuration; numbers of a debug build mean little.
  static var swift: String {
    #if compiler(>=6.3)
      let version = "6.3 or newer"
    #elseif compiler(>=6.2)
      let version = "6.2"
    #elseif compiler(>=6.1)
      let version = "6.1"
    #else
      let version = "6.0"
    #endif
    #if DEBUG
      return "\(version) debug"
    #else
      return "\(version) release"
    #endif
  }

  static var devices: [Device] { MLComputeDevice.allComputeDevices.map { Device($0) } }
}

extension Moment {
  /// The host right now.
  static func now() -> Moment {
    Moment(
      time: ISO8601DateFormatter().string(from: Date()),
      thermalState: HostProbe.thermalState, lowPowerMode: HostProbe.lowPowerMode,
      powerSource: HostProbe.powerSource, loadAverage: HostProbe.loadAverage,
      processMemoryBytes: HostProbe.processMemory)
  }
}

extension EnvironmentReport {
  /// This machine, between two moments.
  static func here(before: Moment, after: Moment) -> EnvironmentReport {
    EnvironmentReport(
      backend: HostProbe.backend, os: HostProbe.os, osVersion: HostProbe.osVersion,
      osBuild: HostProbe.osBuild, arch: HostProbe.arch, chip: HostProbe.chip,
      cores: ProcessInfo.processInfo.activeProcessorCount,
      memoryBytes: Int(clamping: ProcessInfo.processInfo.physicalMemory),
      swift: HostProbe.swift, devices: HostProbe.devices.map(\.rawValue),
      before: before, after: after)
  }
}
