/// Statistics over timed predictions, in milliseconds.
public struct Latency: Codable, Equatable, Sendable {
  public let count: Int
  public let mean: Double
  public let stddev: Double
  public let median: Double
  public let p10: Double
  public let p90: Double
  public let p95: Double
  public let p99: Double
  public let min: Double
  public let max: Double

  /// Nil for no samples. The standard deviation divides by n - 1, and is 0 for one sample.
  public init?(_ samples: [Double]) {
    let sorted = samples.sorted()
    func at(_ fraction: Double) -> Double? { Percentiles.value(of: sorted, at: fraction) }
    guard let least = sorted.first, let most = sorted.last, let median = at(0.5),
      let p10 = at(0.1), let p90 = at(0.9), let p95 = at(0.95), let p99 = at(0.99)
    else { return nil }
    var sum = CompensatedSum()
    for sample in sorted { sum.add(sample) }
    mean = sum.value / Double(sorted.count)
    var squares = CompensatedSum()
    for sample in sorted { squares.add((sample - mean) * (sample - mean)) }
    stddev = sorted.count > 1 ? (squares.value / Double(sorted.count - 1)).squareRoot() : 0
    count = sorted.count
    (self.median, self.p10, self.p90, self.p95, self.p99) = (median, p10, p90, p95, p99)
    (min, max) = (least, most)
  }
}
