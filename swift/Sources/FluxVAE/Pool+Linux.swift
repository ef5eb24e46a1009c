#if !canImport(ObjectiveC)
  /// Runs `body`: nothing is autoreleased here.
  func withPool<Result>(_ body: () throws -> Result) rethrows -> Result {
    try body()
  }
#endif
