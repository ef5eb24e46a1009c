#if os(Linux)
  /// Runs `body`; Linux has no autorelease pools.
  func drained<Result>(_ body: () throws -> Result) rethrows -> Result { try body() }
#endif
