/// What an output has to keep to.
public struct Limit: Codable, Equatable, Sendable {
  /// The measured quantity.
  public enum Metric: String, Codable, Sendable {
    /// Largest absolute difference: at most the bound.
    case maxAbs = "max_abs"
    /// Peak signal-to-noise ratio in decibels: at least the bound.
    case psnrDb = "psnr_db"
  }

  public let metric: Metric
  public let bound: Double

  /// Whether the limit holds; never for an output with a NaN or an infinity.
  public func holds(for metrics: Metrics) -> Bool {
    guard metrics.nan == 0, metrics.inf == 0, let maxAbs = metrics.maxAbs else { return false }
    switch metric {
    case .maxAbs: return maxAbs <= bound
    case .psnrDb: return metrics.isExact || (metrics.psnrDb ?? .infinity) >= bound
    }
  }
}
