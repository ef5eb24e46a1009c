import Foundation

/// The rule of `--strict-host`: what makes a host too noisy for times to mean anything.
enum StrictHost {
  /// Work of others may take at most this share of the cores (1-minute load average).
  static let largestLoad = 0.5

  /// One sentence for each reason; what the system does not tell is no reason.
  static func complaints(_ moment: Moment, cores: Int) -> [String] {
    var found: [String] = []
    if let state = moment.thermalState, state != .nominal {
      found.append("the thermal state is \(state.rawValue)")
    }
    if moment.lowPowerMode == true { found.append("low-power mode is on") }
    if let source = moment.powerSource, source != .ac {
      found.append("it runs from \(source == .ups ? "a UPS" : "the battery")")
    }
    if let load = moment.loadAverage?.first, load > largestLoad * Double(max(cores, 1)) {
      let text = String(format: "%.2f", load)
      found.append("its load average is \(text) on \(cores) cores")
    }
    return found
  }
}
