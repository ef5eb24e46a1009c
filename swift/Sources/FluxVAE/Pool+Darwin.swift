#if canImport(ObjectiveC)
  import Foundation

  /// Runs `body` and frees at once what Core ML left for later: loops would pile it up.
  func withPool<Result>(_ body: () throws -> Result) rethrows -> Result {
    try autoreleasepool(invoking: body)
  }
#endif
