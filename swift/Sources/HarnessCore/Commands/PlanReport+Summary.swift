extension PlanReport.Result {
  /// Counts and lists from the operations of one function.
  ///
  /// - Parameter present: devices of this machine; without a Neural Engine no operation left it.
  init(_ entries: [PlanEntry], units: ComputeUnits, function: String, present: [Device]) {
    let work = entries.filter { !$0.isConstant }
    let listed = work.enumerated().map { index, entry in
      PlannedOperation(
        index: index, operator: entry.operator, output: entry.output,
        supported: entry.usage?.supported ?? [], preferred: entry.usage?.preferred,
        cost: entry.cost.flatMap { $0.isFinite ? $0 : nil })
    }
    computeUnits = units
    self.function = function
    operations = work.count
    constants = entries.count - work.count
    devices = Self.count(listed)
    types = Self.types(listed)
    costByDevice = listed.reduce(into: [:]) { sums, operation in
      if let cost = operation.cost { sums[operation.deviceName, default: 0] += cost }
    }
    let engine = units.allowNeuralEngine && present.contains(.neuralEngine)
    leftNeuralEngine =
      engine ? listed.filter { $0.preferred != .neuralEngine }.map(\.index) : []
    ops = listed
  }

  private static func count(_ operations: [PlannedOperation]) -> [String: Int] {
    operations.reduce(into: [:]) { $0[$1.deviceName, default: 0] += 1 }
  }

  private static func types(_ operations: [PlannedOperation]) -> [PlanReport.OperatorCount] {
    Dictionary(grouping: operations, by: \.operator)
      .map { name, members in
        PlanReport.OperatorCount(operator: name, count: members.count, devices: count(members))
      }
      .sorted { ($1.count, $0.operator) < ($0.count, $1.operator) }
  }
}

extension PlannedOperation {
  /// The preferred device's name; `none` where the plan has none.
  var deviceName: String { preferred?.rawValue ?? "none" }
}
