/// What each set of compute units gave, in the order they were asked for.
struct EachUnit<Result> {
  /// At least one.
  private(set) var results: [Result] = []
  private(set) var failures: [UnitFailure] = []

  /// Runs `body` for one set of compute units after another; one that fails does not stop the rest.
  ///
  /// `body` gives values back and keeps no model, so that only one model is in memory at a time.
  ///
  /// - Throws: what has nothing to do with compute units, at once; when all fail, the one reason,
  ///   or `ModelFault.everyUnit` with several.
  init(
    _ units: [ComputeUnits], _ body: (ComputeUnits) async throws -> Result
  ) async throws {
    var first: (any Error)?
    for units in units {
      do {
        results.append(try await body(units))
      } catch let error where Self.dependsOnUnits(error) {
        first = first ?? error
        failures.append(UnitFailure(computeUnits: units, failure: error.localizedDescription))
      }
    }
    guard results.isEmpty, let first else { return }
    throw Set(failures.map(\.failure)).count == 1 ? first : ModelFault.everyUnit(failures)
  }

  /// A bundle is the same for all units; so is most of what is wrong with a model.
  private static func dependsOnUnits(_ error: any Error) -> Bool {
    if let fault = error as? ModelFault { return fault.dependsOnUnits }
    return error is TensorError || error is MetricsError
  }
}
