import Foundation

/// Options of one prediction.
open class MLPredictionOptions: NSObject {
  /// Arrays to write outputs into, by output name.
  ///
  /// A backing is used when its shape and element type are the output's; the output then is the
  /// same object. Apple's framework may ignore a backing, so code must check by identity.
  open var outputBackings: [String: Any] = [:]

  @available(*, deprecated, message: "Use MLModelConfiguration.computeUnits instead.")
  open var usesCPUOnly: Bool {
    get { cpuOnly }
    set { cpuOnly = newValue }
  }
  private var cpuOnly = false

  public override init() {}
}
