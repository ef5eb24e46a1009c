/// The order of axes of a tensor, batch first.
public enum TensorLayout: String, Codable, Sendable, Hashable, CaseIterable {
  /// Batch, channels, rows, columns: one plane after the other.
  case nchw
  /// Batch, rows, columns, channels: one pixel after the other.
  case nhwc

  /// The four-axis shape of one tensor of this layout.
  func shape(channels: Int, height: Int, width: Int) -> [Int] {
    switch self {
    case .nchw: [1, channels, height, width]
    case .nhwc: [1, height, width, channels]
    }
  }

  /// Channels, rows and columns of a shape of three axes or of four with a batch of one.
  func split(_ shape: [Int]) -> (channels: Int, height: Int, width: Int)? {
    let axes = shape.count == 4 && shape.first == 1 ? Array(shape.dropFirst()) : shape
    guard axes.count == 3, axes.allSatisfy({ $0 > 0 }) else { return nil }
    switch self {
    case .nchw: return (axes[0], axes[1], axes[2])
    case .nhwc: return (axes[2], axes[0], axes[1])
    }
  }

  /// `values` of this layout in the order of `other`.
  func reorder(_ values: [Float], channels: Int, to other: TensorLayout) -> [Float] {
    guard self != other, channels > 0 else { return values }
    let pixels = values.count / channels
    return self == .nchw
      ? transposed(values, rows: channels, columns: pixels)
      : transposed(values, rows: pixels, columns: channels)
  }
}

/// A matrix of `rows` times `columns`, turned over its diagonal.
private func transposed(_ values: [Float], rows: Int, columns: Int) -> [Float] {
  [Float](unsafeUninitializedCapacity: values.count) { target, count in
    values.withUnsafeBufferPointer { source in
      for row in 0..<rows {
        for column in 0..<columns {
          target.initializeElement(at: column * rows + row, to: source[row * columns + column])
        }
      }
    }
    count = values.count
  }
}
