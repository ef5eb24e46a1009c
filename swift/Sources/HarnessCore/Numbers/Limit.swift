/// What an output has to keep to.
public struct Limit: Codable, Equatable, Sendable {
  /// The measured quantity.
  public enum Metric: String, Codable, Sendable {
    /// Largest absolute difference: at most the bound.
    case maxAbs = "max_abs"
    /// Peak signal-to-noise ratio in decibels: at least the bound.
    case psnrDb = "psnr_db"

    /// The largest bound that makes sense; the least is above 0.
    public var largestBound: Double {
      switch self {
      case .maxAbs: 2
      case .psnrDb: 200
      }
    }
  }

  public let metric: Metric
  public let bound: Double

  /// Whether the bound can tell a good image from a bad one; the same rule as in
  /// `fluxvae/recipes/bounds.py`.
  ///
  /// At 0 dB the error is as large as the image's range. Beyond 200 dB, far below a rounding of
  /// float32 (about 155 dB), only equal images pass. A decoder's image spans 2 at most (-1...1).
  public var isSensible: Bool { bound > 0 && bound <= metric.largestBound }

  /// Whether the limit holds; never for an output with a NaN or an infinity.
  public func holds(for metrics: Metrics) -> Bool {
    guard metrics.nan == 0, metrics.inf == 0, let maxAbs = metrics.maxAbs else { return false }
    switch metric {
    case .maxAbs: return maxAbs <= bound
    case .psnrDb: return metrics.isExact || (metrics.psnrDb ?? .infinity) >= bound
    }
  }
}
