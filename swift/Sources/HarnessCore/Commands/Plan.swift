@preconcurrency import CoreML
import Foundation

/// `plan`: where Core ML means to run each operation.
public enum Plan {
  /// A record is given back even where the system has no compute plan; it says so.
  ///
  /// - Throws: `ModelFault` when the model does not load.
  public static func run(
    _ choice: ModelChoice, progress: (String) -> Void
  ) async throws -> Report {
    let before = Moment.now()
    let interface = try LoadedModel(
      url: choice.url, function: choice.function, units: .cpuOnly, loader: .coreML
    ).interface
    var results: [PlanReport.Result] = []
    var failures: [UnitFailure] = []
    for units in choice.units {
      progress("plan for \(units.rawValue)")
      let configuration = MLModelConfiguration()
      configuration.computeUnits = units.coreML
      configuration.functionName = choice.function
      do {
        let plan = try await MLComputePlan.load(
          contentsOf: choice.url, configuration: configuration)
        results += try summaries(plan, units: units, function: choice.function)
      } catch {
        failures.append(UnitFailure(computeUnits: units, failure: error.localizedDescription))
      }
    }
    let available = failures.count < choice.units.count
    let report = PlanReport(
      available: available, reason: available ? nil : failures.first?.failure, results: results)
    return Report(
      command: .plan, model: await choice.report(choice.function, interface),
      environment: .here(before: before, after: .now()), plan: report,
      failures: available ? failures : [], notes: HostProbe.notes([]))
  }

  private static func summaries(
    _ plan: MLComputePlan, units: ComputeUnits, function: String?
  ) throws(PlanFault) -> [PlanReport.Result] {
    let devices = HostProbe.devices
    switch plan.modelStructure {
    case .program(let program):
      let functions = program.functions.filter { function == nil || $0.key == function }
      return functions.sorted { $0.key < $1.key }.map { name, body in
        let entries = entries(body.block, plan: plan)
        return PlanReport.Result(entries, units: units, function: name, present: devices)
      }
    case .neuralNetwork(let network):
      let entries = network.layers.map { layer in
        PlanEntry(
          operator: layer.type, output: layer.outputNames.first,
          usage: plan.deviceUsage(for: layer).map { PlanEntry.Usage($0) }, cost: nil)
      }
      return [PlanReport.Result(entries, units: units, function: "main", present: devices)]
    default: throw .structure
    }
  }

  private static func entries(
    _ block: MLModelStructure.Program.Block, plan: MLComputePlan
  ) -> [PlanEntry] {
    block.operations.flatMap { operation in
      let own = PlanEntry(
        operator: operation.operatorName, output: operation.outputs.first?.name,
        usage: plan.deviceUsage(for: operation).map { PlanEntry.Usage($0) },
        cost: plan.estimatedCost(of: operation)?.weight)
      return [own] + operation.blocks.flatMap { entries($0, plan: plan) }
    }
  }
}

extension PlanEntry.Usage {
  init(_ usage: MLComputePlan.DeviceUsage) {
    self.init(
      supported: usage.supported.map { Device($0) }, preferred: Device(usage.preferred))
  }
}
