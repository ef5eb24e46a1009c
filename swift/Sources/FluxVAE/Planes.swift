/// Numbers in C order and their shape: what functions of one model hand to each other.
struct Planes: Equatable, Sendable {
  let values: [Float]
  let shape: [Int]

  /// These rows and columns of a `(1, channels, height, width)` array.
  func block(rows: some Collection<Int>, columns: some Collection<Int>) -> Planes {
    let (channels, height, width) = (shape[1], shape[2], shape[3])
    let count = channels * rows.count * columns.count
    let block = [Float](unsafeUninitializedCapacity: count) { target, filled in
      values.withUnsafeBufferPointer { source in
        for channel in 0..<channels {
          for row in rows {
            let line = (channel * height + row) * width
            for column in columns {
              target.initializeElement(at: filled, to: source[line + column])
              filled += 1
            }
          }
        }
      }
    }
    return Planes(values: block, shape: [1, channels, rows.count, columns.count])
  }

  /// The array in `step` x `step` samples of one size, all places once.
  func samples(_ step: Int) -> [Planes] {
    let columns = Self.places(shape[3], step)
    return Self.places(shape[2], step).flatMap { rows in
      columns.map { block(rows: rows, columns: $0) }
    }
  }

  /// Rows (or columns) of each sample: every `step`-th block of 8, 4, 2 or 1, as it divides.
  ///
  /// Blocks keep what convolutions see together; the same rule as `fluxvae/artifact/tiles.py`.
  static func places(_ extent: Int, _ step: Int) -> [[Int]] {
    let block = [8, 4, 2].first { extent.isMultiple(of: step * $0) } ?? 1
    return (0..<step).map { start in (0..<extent).filter { $0 / block % step == start } }
  }

  /// Statistics `(1, norms, groups, 2)` of several equal samples as those of one sample of all.
  ///
  /// In the last axis stand a mean and a deviation. The variance of all is the mean variance and the
  /// variance of the means; as `fluxvae/artifact/tiles.py` has it, in double precision.
  static func pooled(_ parts: [Planes]) -> Planes? {
    guard let first = parts.first else { return nil }
    guard parts.count > 1 else { return first }
    let count = Double(parts.count)
    var values = first.values
    for pair in stride(from: 0, to: values.count, by: 2) {
      let means = parts.map { Double($0.values[pair]) }
      let mean = means.reduce(0, +) / count
      let within = parts.reduce(0) { $0 + Double($1.values[pair + 1]) * Double($1.values[pair + 1]) }
      let between = means.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
      values[pair] = Float(mean)
      values[pair + 1] = Float((within / count + between / count).squareRoot())
    }
    return Planes(values: values, shape: first.shape)
  }
}
