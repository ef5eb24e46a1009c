import Testing

@testable import HarnessCore

@Suite("Numbers against numpy and hashlib")
struct NumbersTests {
  static let limitCases: [(Limit, [Float], Bool)] = [
    (Limit(metric: .maxAbs, bound: 0.25), [Float(0.25), 0], true),
    (Limit(metric: .maxAbs, bound: 0.24), [0.25, 0], false),
    (Limit(metric: .psnrDb, bound: 40), [0, 0], true),
    // 20 log10(1 / (0.25 / sqrt 2)) = 15.0515
    (Limit(metric: .psnrDb, bound: 15.05), [0.25, 0], true),
    (Limit(metric: .psnrDb, bound: 15.06), [0.25, 0], false),
    (Limit(metric: .psnrDb, bound: 0), [.nan, 0], false),
    (Limit(metric: .maxAbs, bound: 1e9), [.infinity, 0], false),
  ]

  let vectors: Vectors

  init() throws { vectors = try Vectors.load() }

  @Test("percentiles are numpy's to the last bit")
  func percentiles() {
    #expect(vectors.latency.count >= 9)
    for times in vectors.latency {
      let sorted = times.samples.sorted()
      for (fraction, expected) in zip(times.fractions, times.quantiles) {
        #expect(Percentiles.value(of: sorted, at: fraction) == expected)
      }
    }
  }

  @Test("no samples have no percentile, and no latency")
  func nothing() {
    #expect(Percentiles.value(of: [], at: 0.5) == nil)
    #expect(Percentiles.value(of: [1], at: .nan) == nil)
    #expect(Latency([]) == nil)
  }

  @Test("latency sorts by itself; mean and deviation agree to 1e-14")
  func latency() throws {
    for times in vectors.latency {
      let found = try #require(Latency(times.samples.reversed()))
      #expect(found.p10 == times.percentiles["p10"])
      #expect(found.p90 == times.percentiles["p90"])
      #expect(found.p95 == times.percentiles["p95"])
      #expect(found.p99 == times.percentiles["p99"])
      #expect(found.min == times.samples.min())
      #expect(found.max == times.samples.max())
      #expect(found.count == times.samples.count)
      // numpy sums pairwise and Latency with compensation: they may differ in the last bits.
      #expect(abs(found.mean - times.mean) <= 1e-14 * times.mean)
      #expect(abs(found.stddev - times.stddev) <= 1e-13 * max(times.stddev, times.mean))
    }
  }

  @Test("metrics are those of fluxvae/validation/metrics.py")
  func metrics() throws {
    for pair in vectors.metrics {
      let candidate = try Tensor(
        pair.candidate.map { Float($0.value) }, shape: pair.shape, dtype: .float32)
      let reference = try Tensor(pair.reference, shape: pair.shape, dtype: .float32)
      let found = try Metrics(candidate, against: reference)
      let expected = pair.expected
      #expect(close(found.maxAbs, expected.maxAbs))
      #expect(close(found.mae, expected.mae))
      #expect(close(found.rmse, expected.rmse))
      #expect(close(found.psnrDb, expected.psnrDb))
      #expect(close(found.cosine, expected.cosine))
      #expect(found.nan == expected.nan)
      #expect(found.inf == expected.inf)
      #expect(found.worst == expected.worst)
    }
  }

  @Test("PSNR is of the reference's range: images in [-1, 1] have 6.02 dB more")
  func peak() throws {
    let reference = try Tensor([-1, 1], shape: [2], dtype: .float32)
    let candidate = try Tensor([-0.75, 0.75], shape: [2], dtype: .float32)
    #expect(close(try Metrics(candidate, against: reference).psnrDb, 12.041199826559248))
    #expect(close(try Metrics(candidate, against: reference, peak: 2).psnrDb, 18.061799739838872))
  }

  @Test("arrays of different shapes are not compared")
  func shapes() throws {
    let a = try Tensor([1, 2], shape: [1, 2], dtype: .float32)
    let b = try Tensor([1, 2], shape: [2, 1], dtype: .float32)
    #expect(throws: MetricsError.shapes(candidate: [1, 2], reference: [2, 1])) {
      try Metrics(a, against: b)
    }
  }

  @Test("digests are hashlib's around every block border")
  func digests() {
    #expect(vectors.sha256.count == 13)
    for digest in vectors.sha256 {
      let bytes = (0..<digest.length).map { UInt8($0 * 7 % 256) }
      #expect(SHA256.hexDigest(bytes) == digest.hex)
    }
  }

  @Test("a limit is kept, missed, and never kept by a NaN", arguments: limitCases)
  func limits(limit: Limit, values: [Float], kept: Bool) throws {
    let candidate = try Tensor(values, shape: [2], dtype: .float32)
    let reference = try Tensor([0, 0], shape: [2], dtype: .float32)
    #expect(limit.holds(for: try Metrics(candidate, against: reference)) == kept)
  }

  /// The two sums are formed in another order; 1e-12 is far above that and far below any meaning.
  private func close(_ found: Double?, _ expected: Double?) -> Bool {
    guard let found, let expected else { return found == nil && expected == nil }
    return abs(found - expected) <= 1e-12 * max(1, abs(expected))
  }
}
