/// Percentiles by numpy's default ("linear") definition, to the bit: the same rule as in Python.
public enum Percentiles {
  /// The value at `fraction` (0 to 1) of samples sorted in ascending order; nil for no samples.
  ///
  /// The place is `fraction * (n - 1)`; between two samples the line is followed from the nearer
  /// one, as `numpy.percentile` does (`_lerp` in numpy/lib/_function_base_impl.py).
  public static func value(of sorted: [Double], at fraction: Double) -> Double? {
    guard let last = sorted.last, !fraction.isNaN else { return nil }
    let place = min(max(fraction, 0), 1) * Double(sorted.count - 1)
    let below = Int(place.rounded(.down))
    guard below + 1 < sorted.count else { return last }
    let weight = place - Double(below)
    let (low, high) = (sorted[below], sorted[below + 1])
    let difference = high - low
    return weight >= 0.5 ? high - difference * (1 - weight) : low + difference * weight
  }
}
