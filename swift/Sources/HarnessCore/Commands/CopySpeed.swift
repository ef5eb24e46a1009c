import CoreML
internal import FluxVAESupport
import Foundation

/// `speed`: how fast a padded output is copied out, beside `memcpy` in the same run.
public struct CopySpeed: Equatable, Sendable {
  public let shape: [Int]
  public let strides: [Int]
  /// Gigabytes (10^9) of payload per second, from the median over all rounds.
  public let rows: Double
  public let memcpy: Double
  /// Reading into a new `Tensor`, which allocates memory each time.
  public let tensor: Double

  /// Times the copies of a float16 output in turns, so that the machine's load meets all alike.
  ///
  /// - Throws: `TensorError` for a shape or padding that makes no array.
  public static func measure(
    shape: [Int] = [3, 1024, 1024], padding: Int = 32, rounds: Int = 200
  ) throws -> CopySpeed {
    let array = try paddedArray(shape: shape, padding: padding)
    let strides = array.strides.map(\.intValue)
    let layout = try StridedLayout(shape, strides: strides, scalarSize: 2)
    var target = [UInt8](repeating: 1, count: layout.denseByteCount)
    let dense = [UInt8](repeating: 2, count: layout.denseByteCount)
    var times: (rows: [Double], memcpy: [Double], tensor: [Double]) = ([], [], [])
    for _ in 0..<max(rounds, 1) {
      try target.withUnsafeMutableBytes { target in
        times.rows.append(
          try milliseconds {
            try array.withUnsafeBytes { try layout.gather(from: $0, into: target) }
          })
        times.memcpy.append(milliseconds { dense.withUnsafeBytes { target.copyMemory(from: $0) } })
      }
      times.tensor.append(try milliseconds { _ = try Tensor(array) })
    }
    func speed(_ times: [Double]) -> Double {
      Double(layout.denseByteCount) / 1e6 / (Percentiles.value(of: times.sorted(), at: 0.5) ?? .nan)
    }
    return CopySpeed(
      shape: shape, strides: strides, rows: speed(times.rows), memcpy: speed(times.memcpy),
      tensor: speed(times.tensor))
  }

  /// What was measured, for people.
  public var lines: [String] {
    func text(_ speed: Double) -> String { String(format: "%6.2f GB/s", speed) }
    return [
      "float16 \(shape), strides \(strides), median of all rounds",
      "  padded rows  \(text(rows))  (\(String(format: "%.0f", 100 * rows / memcpy)) % of memcpy)",
      "  memcpy       \(text(memcpy))",
      "  new tensor   \(text(tensor))  (with allocation)",
    ]
  }

  private static func paddedArray(shape: [Int], padding: Int) throws -> MLMultiArray {
    var strides: [Int] = []
    var step = 1
    for extent in shape.reversed() {
      strides.insert(step, at: 0)
      step = step * extent + (strides.count == 1 ? padding : 0)
    }
    let storage = UnsafeMutableRawPointer.allocate(byteCount: step * 2, alignment: 64)
    storage.initializeMemory(as: UInt8.self, repeating: 3, count: step * 2)
    return try MLMultiArray(
      dataPointer: storage, shape: shape.map { NSNumber(value: $0) }, dataType: .float16,
      strides: strides.map { NSNumber(value: $0) }, deallocator: { $0.deallocate() })
  }

  private static func milliseconds(_ body: () throws -> Void) rethrows -> Double {
    let clock = ContinuousClock()
    let start = clock.now
    try body()
    return (clock.now - start).milliseconds
  }
}
