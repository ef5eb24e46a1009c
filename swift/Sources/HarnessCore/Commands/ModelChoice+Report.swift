extension ModelChoice {
  /// What is said about the model in a report.
  func report(_ function: String?, _ interface: Interface) async -> ModelReport {
    ModelReport(
      path: path, functions: await functionNames(), function: function, interface: interface)
  }
}

extension InputReport {
  init(_ bundle: IOBundle) {
    self.init(
      source: .io, path: bundle.path, case: bundle.manifest.case, seed: nil,
      shape: bundle.manifest.input.shape)
  }
}

extension HostProbe {
  /// What a reader must know before using numbers of this machine.
  static func notes(_ units: [ComputeUnits]) -> [String] {
    guard backend == .reference else { return [] }
    var notes = [
      "Run by fluxvae's reference executor on Linux, not by Core ML: times say nothing about a "
        + "Mac, and thermal state and power source are not known here. The first load starts the "
        + "executor."
    ]
    if units.contains(where: { $0 != .cpuOnly }) {
      notes.append("This machine lists the CPU alone: every set of compute units ran on it.")
    }
    return notes
  }
}
