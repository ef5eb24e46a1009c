/// Outputs held against the first one, bit by bit.
struct DriftTally {
  private let first: [Tensor]
  private var count = 1
  private var differing = 0
  private var firstDiffering: Int?
  private var largest: Double? = 0

  init(first: [Tensor]) { self.first = first }

  /// - Throws: `MetricsError` when the outputs have other shapes than the first ones.
  mutating func add(_ outputs: [Tensor]) throws(MetricsError) {
    defer { count += 1 }
    guard outputs != first else { return }
    differing += 1
    firstDiffering = firstDiffering ?? count
    for (output, reference) in zip(outputs, first) where output != reference {
      let found = try Metrics(output, against: reference).maxAbs
      largest = if let largest, let found, found.isFinite { max(largest, found) } else { nil }
    }
  }

  func run(_ units: ComputeUnits) -> DriftReport.Run {
    DriftReport.Run(
      computeUnits: units, bitEqual: differing == 0, differing: differing,
      firstDiffering: firstDiffering, maxAbs: largest,
      digest: SHA256.hexDigest(first.flatMap(\.bytes)))
  }
}
