/// Predictions that no percentile includes, in milliseconds and in their order.
///
/// The first calls after loading and after a pause are slower: a Neural Engine that rested for more
/// than 5 s takes about 260 ms to wake, and some three calls until it is at full speed
/// (arXiv 2606.22283).
public struct FirstCalls: Codable, Equatable, Sendable {
  /// How many calls are kept apart, at least: as many as the ramp has.
  public static let count = 3
  /// Seconds of pause after which a Neural Engine sleeps.
  public static let sleepsAfter = 6.0

  public let afterLoadMs: [Double]
  /// Length of the pause; 0 for none, and then `afterIdleMs` is empty.
  public let idleS: Double
  public let afterIdleMs: [Double]
}
