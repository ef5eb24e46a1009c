#if canImport(Darwin)
  import Foundation

  /// Runs `body` in an autorelease pool of its own, so that repeated predictions do not pile up.
  func drained<Result>(_ body: () throws -> Result) rethrows -> Result {
    try autoreleasepool(invoking: body)
  }
#endif
