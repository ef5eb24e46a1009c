/// Numbers in C order and their shape: what functions of one model hand to each other.
struct Planes: Equatable, Sendable {
  let values: [Float]
  let shape: [Int]

  /// A block of a `(1, channels, height, width)` array, or every `step`-th row and column of it.
  func block(rows: Range<Int>, columns: Range<Int>, step: Int = 1) -> Planes {
    let (channels, height, width) = (shape[1], shape[2], shape[3])
    let down = stride(from: rows.lowerBound, to: rows.upperBound, by: step)
    let across = stride(from: columns.lowerBound, to: columns.upperBound, by: step)
    let count = channels * Array(down).count * Array(across).count
    let block = [Float](unsafeUninitializedCapacity: count) { target, filled in
      values.withUnsafeBufferPointer { source in
        for channel in 0..<channels {
          for row in down {
            let line = (channel * height + row) * width
            for column in across {
              target.initializeElement(at: filled, to: source[line + column])
              filled += 1
            }
          }
        }
      }
    }
    return Planes(values: block, shape: [1, channels, Array(down).count, Array(across).count])
  }

  /// Statistics `(1, norms, groups, 2)` of several equal samples as those of one sample of all.
  ///
  /// In the last axis stand a mean and a deviation. The variance of all is the mean variance and the
  /// variance of the means; as `fluxvae/tiling.py` has it, in double precision.
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
