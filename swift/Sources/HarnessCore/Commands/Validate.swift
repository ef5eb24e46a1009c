import Foundation

/// `validate`: a bundle's input through a model, its output against the bundle's.
public enum Validate {
  /// - Parameter progress: gets a line when something slow starts.
  /// - Throws: `BundleError` for a bundle that is damaged or made for another model, `ModelFault`
  ///   for a model that does not load or run. A failed limit is no error but a verdict.
  public static func run(
    _ choice: ModelChoice, io folder: URL, progress: (String) -> Void
  ) async throws -> Report {
    let before = Moment.now()
    let bundle = try IOBundle(folder: folder)
    var results: [ValidationReport.Result] = []
    var described: (LoadedModel, IOBundle.Agreement)?
    for units in choice.units {
      progress("validate on \(units.rawValue)")
      let model = try await choice.open(bundle, units: units).model
      let agreement = try bundle.agreement(with: model.interface)
      let input = try model.provider([bundle.manifest.input.name: bundle.input])
      let output = try model.output(bundle.manifest.output.name, for: input)
      let metrics = try Metrics(output, against: bundle.output)
      let verdict: ValidationReport.Verdict = agreement.limit.holds(for: metrics) ? .pass : .fail
      results.append(.init(computeUnits: units, verdict: verdict, metrics: metrics))
      described = described ?? (model, agreement)
    }
    guard let (model, agreement) = described else { throw ModelFault.missing(path: choice.path) }
    return Report(
      .validate, model: await choice.report(model),
      environment: .here(before: before, after: .now()),
      input: InputReport(bundle),
      validation: validation(bundle.manifest, agreement, results),
      notes: HostProbe.notes(choice.units))
  }

  static func validation(
    _ manifest: Manifest, _ agreement: IOBundle.Agreement, _ results: [ValidationReport.Result]
  ) -> ValidationReport {
    ValidationReport(
      verdict: results.allSatisfy { $0.verdict == .pass } ? .pass : .fail,
      variant: manifest.variant, size: manifest.size, case: manifest.case,
      precision: agreement.precision, limit: agreement.limit, results: results,
      notes: agreement.notes)
  }
}
