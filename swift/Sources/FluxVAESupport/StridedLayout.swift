/// Where the scalars of an array lie in memory, and how to move them in bulk.
///
/// Core ML pads rows of some outputs (64 bytes on the Neural Engine), so element `i` lies at
/// `sum(i[d] * strides[d])`, in scalars. One copy moves as many neighbouring scalars as the strides
/// allow: everything for a dense array, else a plane or a row; single scalars are the last resort.
package struct StridedLayout: Equatable, Sendable {
  package let shape: [Int]
  package let strides: [Int]
  package let scalarSize: Int
  /// Bytes from the first scalar to the end of the last one.
  package let extent: Int
  /// Bytes that lie side by side and are moved at once.
  package let run: Int
  /// Bytes of the dense form.
  package let denseByteCount: Int
  private let outer: [Axis]  // what remains to be walked, outermost first

  private struct Axis: Equatable, Sendable {
    let count: Int
    let stride: Int  // in bytes
  }

  /// Nil when the strides do not describe an array: another rank, negative strides or extents, or
  /// more bytes than an `Int` counts.
  ///
  /// - Parameters:
  ///   - strides: in scalars, one for each extent of `shape`.
  ///   - scalarSize: in bytes.
  package init?(shape: [Int], strides: [Int], scalarSize: Int) {
    guard shape.count == strides.count, (shape + strides).allSatisfy({ $0 >= 0 }) else {
      return nil
    }
    var (dense, last) = (scalarSize, 0)
    for (count, stride) in zip(shape, strides) {
      let (product, tooLarge) = dense.multipliedReportingOverflow(by: count)
      let (span, tooWide) = max(count - 1, 0).multipliedReportingOverflow(by: scalarSize)
      let (reach, tooFar) = stride.multipliedReportingOverflow(by: span)
      let (sum, overflow) = last.addingReportingOverflow(reach)
      guard !tooLarge, !tooWide, !tooFar, !overflow else { return nil }
      (dense, last) = (product, sum)
    }
    self.shape = shape
    self.strides = strides
    self.scalarSize = scalarSize
    denseByteCount = dense
    extent = dense == 0 ? 0 : last + scalarSize
    (run, outer) =
      dense == 0
      ? (0, []) : Self.fold(shape: shape, strides: strides, scalarSize: scalarSize)
  }

  /// Joins axes that follow each other without a gap; axes of one element have no say.
  private static func fold(shape: [Int], strides: [Int], scalarSize: Int) -> (Int, [Axis]) {
    var run = scalarSize
    var outer: [Axis] = []
    for (count, stride) in zip(shape, strides).reversed() where count != 1 {
      let axis = Axis(count: count, stride: stride * scalarSize)
      if outer.isEmpty, axis.stride == run {
        run *= count
      } else if let inner = outer.last, axis.stride == inner.stride * inner.count {
        outer[outer.count - 1] = Axis(count: inner.count * count, stride: inner.stride)
      } else {
        outer.append(axis)
      }
    }
    return (run, outer.reversed())
  }

  /// Copies the array out of strided memory into dense memory, without a look at their sizes.
  package func gather(from source: UnsafeRawPointer?, into target: UnsafeMutableRawPointer?) {
    guard let source, let target, denseByteCount > 0 else { return }
    switch (outer.isEmpty, run) {
    case (true, _): target.copyMemory(from: source, byteCount: run)
    case (false, 2): gather(source, target, as: UInt16.self)
    case (false, 4): gather(source, target, as: UInt32.self)
    case (false, 8): gather(source, target, as: UInt64.self)
    default:
      walk { strided, packed in
        (target + packed).copyMemory(from: source + strided, byteCount: run)
      }
    }
  }

  /// Copies dense memory into strided memory, without a look at their sizes; padding keeps what it
  /// had.
  package func scatter(from source: UnsafeRawPointer?, into target: UnsafeMutableRawPointer?) {
    guard let source, let target, denseByteCount > 0 else { return }
    walk { strided, packed in
      (target + strided).copyMemory(from: source + packed, byteCount: run)
    }
  }

  /// One load and one store for each run: a call to copy two bytes would cost more than they do.
  private func gather<Pattern: BitwiseCopyable>(
    _ source: UnsafeRawPointer, _ target: UnsafeMutableRawPointer, as type: Pattern.Type
  ) {
    walk { strided, packed in
      let pattern = source.loadUnaligned(fromByteOffset: strided, as: type)
      target.storeBytes(of: pattern, toByteOffset: packed, as: type)
    }
  }

  /// Calls `body` with the byte offsets of every run, in C order.
  @inline(__always)
  private func walk(_ body: (_ strided: Int, _ packed: Int) -> Void) {
    guard let inner = outer.last else { return body(0, 0) }
    let slower = outer.dropLast()
    var index = [Int](repeating: 0, count: slower.count)
    var base = 0
    var packed = 0
    while true {
      var strided = base
      for _ in 0..<inner.count {
        body(strided, packed)
        strided += inner.stride
        packed += run
      }
      var axis = slower.count - 1
      while axis >= 0 {
        index[axis] += 1
        base += slower[axis].stride
        if index[axis] < slower[axis].count { break }
        base -= slower[axis].count * slower[axis].stride
        index[axis] = 0
        axis -= 1
      }
      if axis < 0 { return }
    }
  }
}
