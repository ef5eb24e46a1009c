/// One operation as the compute plan gives it, before constants are set apart.
struct PlanEntry: Equatable, Sendable {
  /// Devices of one operation.
  struct Usage: Equatable, Sendable {
    let supported: [Device]
    let preferred: Device
  }

  let `operator`: String
  let output: String?
  let usage: Usage?
  let cost: Double?

  /// A value that is folded at load time and does no work: `const`, and compressed weights
  /// (`constexpr_…`) where the plan has no device for them.
  var isConstant: Bool {
    let name = `operator`.split(separator: ".").last.map(String.init) ?? `operator`
    return name == "const" || (name.hasPrefix("constexpr_") && usage == nil)
  }
}
