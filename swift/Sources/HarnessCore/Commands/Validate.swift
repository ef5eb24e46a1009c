import Foundation

/// `validate`: a bundle's input through a model, its output against the bundle's.
public enum Validate {
  /// - Parameter progress: gets a line when something slow starts.
  /// - Throws: `BundleError` for a bundle that is damaged or made for another model, `ModelFault`
  ///   for a model that does not load or run. A failed limit is no error but a verdict.
  public static func run(
    _ choice: ModelChoice, io folder: URL, loader: ModelLoader = .coreML,
    progress: (String) -> Void
  ) async throws -> Report {
    let before = Moment.now()
    let bundle = try IOBundle(folder: folder)
    let each = try await EachUnit(choice.units) { units in
      progress("validate on \(units.rawValue)")
      let model = try await choice.open(bundle, units: units, loader: loader).model
      let agreement = try bundle.agreement(with: model.interface)
      let input = try model.provider([bundle.manifest.input.name: bundle.input])
      let output = try model.output(bundle.manifest.output.name, for: input)
      let metrics = try Metrics(output, against: bundle.output, peak: agreement.peak)
      let verdict: ValidationReport.Verdict = agreement.limit.holds(for: metrics) ? .pass : .fail
      return (
        result: ValidationReport.Result(computeUnits: units, verdict: verdict, metrics: metrics),
        agreement: agreement, function: model.function, interface: model.interface
      )
    }
    let first = each.results[0]
    return Report(
      command: .validate, model: await choice.report(first.function, first.interface),
      environment: .here(before: before, after: .now()),
      input: InputReport(bundle),
      validation: validation(
        bundle.manifest, first.agreement, each.results.map(\.result), each.failures),
      failures: each.failures, notes: HostProbe.notes(choice.units))
  }

  static func validation(
    _ manifest: Manifest, _ agreement: IOBundle.Agreement, _ results: [ValidationReport.Result],
    _ failures: [UnitFailure]
  ) -> ValidationReport {
    let passed = failures.isEmpty && results.allSatisfy { $0.verdict == .pass }
    return ValidationReport(
      verdict: passed ? .pass : .fail,
      variant: manifest.variant, size: manifest.size, case: manifest.case,
      precision: agreement.precision, limit: agreement.limit, results: results,
      notes: agreement.notes)
  }
}
