import Foundation

/// How far an output is from its reference, computed in double precision over all values.
///
/// The same definitions as `fluxvae/validation/metrics.py`: distances are nil (there: not a number) when the
/// output holds a NaN or an infinity, and `psnrDb` is nil too (there: infinite) for equal arrays.
public struct Metrics: Codable, Equatable, Sendable {
  @Nullable public var maxAbs: Double?
  @Nullable public var mae: Double?
  @Nullable public var rmse: Double?
  @Nullable public var psnrDb: Double?
  @Nullable public var cosine: Double?
  public let nan: Int
  public let inf: Int
  public let worst: [Int]

  /// Compares two arrays of one shape; the reference must be finite.
  ///
  /// - Parameter peak: the reference's range, which PSNR is of: 1 for [0, 1].
  ///
  /// - Throws: `MetricsError.shapes` when the shapes differ.
  public init(
    _ candidate: Tensor, against reference: Tensor, peak: Double = 1
  ) throws(MetricsError) {
    guard candidate.shape == reference.shape else {
      throw .shapes(candidate: candidate.shape, reference: reference.shape)
    }
    self.init(
      candidate.doubles(), against: reference.doubles(), shape: candidate.shape, peak: peak)
  }

  private init(_ a: [Double], against b: [Double], shape: [Int], peak: Double) {
    nan = a.count(where: \.isNaN)
    inf = a.count(where: \.isInfinite)
    if nan + inf > 0 {
      worst = Self.index(of: a.firstIndex { !$0.isFinite } ?? 0, in: shape)
      (maxAbs, mae, rmse, psnrDb, cosine) = (nil, nil, nil, nil, nil)
      return
    }
    var (absolute, squares) = (CompensatedSum(), CompensatedSum())
    var (dot, normA, normB) = (CompensatedSum(), CompensatedSum(), CompensatedSum())
    var (largest, place) = (0.0, 0)
    for index in a.indices {
      let (x, y) = (a[index], b[index])
      let error = abs(x - y)
      if error > largest { (largest, place) = (error, index) }
      absolute.add(error)
      squares.add(error * error)
      dot.add(x * y)
      normA.add(x * x)
      normB.add(y * y)
    }
    let count = Double(max(a.count, 1))
    let rms = (squares.value / count).squareRoot()
    let norms = normA.value.squareRoot() * normB.value.squareRoot()
    worst = Self.index(of: place, in: shape)
    maxAbs = largest
    mae = absolute.value / count
    rmse = rms
    psnrDb = rms > 0 ? 20 * log10(peak / rms) : nil
    cosine = norms > 0 ? dot.value / norms : (largest == 0 ? 1 : 0)
  }

  /// Whether the two were equal in value (+0 and -0 are).
  public var isExact: Bool { maxAbs == 0 }

  private static func index(of place: Int, in shape: [Int]) -> [Int] {
    var rest = place
    var index: [Int] = []
    for extent in shape.reversed() {
      index.append(extent > 0 ? rest % extent : 0)
      rest = extent > 0 ? rest / extent : 0
    }
    return index.reversed()
  }
}
