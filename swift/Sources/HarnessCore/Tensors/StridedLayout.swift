/// Where the scalars of an array lie in memory, and how to move them in bulk.
///
/// Core ML pads rows of some outputs (64 bytes on the Neural Engine), so element `i` lies at
/// `sum(i[d] * strides[d])`, in scalars. One copy moves as many neighbouring scalars as the strides
/// allow: everything for a dense array, else a plane or a row; single scalars are the last resort.
public struct StridedLayout: Equatable, Sendable {
  public let shape: [Int]
  public let strides: [Int]
  public let scalarSize: Int
  /// Bytes from the first scalar to the end of the last one.
  public let extent: Int
  /// Bytes that lie side by side and are moved at once.
  public let run: Int
  /// Bytes of the dense form.
  public let denseByteCount: Int
  private let outer: [Axis]  // what remains to be walked, outermost first

  private struct Axis: Equatable, Sendable {
    let count: Int
    let stride: Int  // in bytes
  }

  /// - Parameters:
  ///   - strides: in scalars, one for each extent of `shape`.
  ///   - scalarSize: in bytes.
  /// - Throws: `TensorError.strides` when they are of another rank, negative or beyond `Int`;
  ///   `TensorError.shape` for a shape that is not possible.
  public init(shape: [Int], strides: [Int], scalarSize: Int) throws(TensorError) {
    guard shape.count == strides.count, strides.allSatisfy({ $0 >= 0 }) else {
      throw .strides(shape: shape, strides: strides)
    }
    var dense = scalarSize
    var last = 0
    for (count, stride) in zip(shape, strides) {
      guard count >= 0 else { throw .shape(shape) }
      let (product, tooLarge) = dense.multipliedReportingOverflow(by: count)
      guard !tooLarge else { throw .shape(shape) }
      dense = product
      let (reach, tooFar) = stride.multipliedReportingOverflow(by: max(count - 1, 0) * scalarSize)
      let (sum, overflow) = last.addingReportingOverflow(reach)
      guard !tooFar, !overflow else { throw .strides(shape: shape, strides: strides) }
      last = sum
    }
    self.shape = shape
    self.strides = strides
    self.scalarSize = scalarSize
    denseByteCount = dense
    extent = dense == 0 ? 0 : last + scalarSize
    (run, outer) = Self.fold(shape: shape, strides: strides, scalarSize: scalarSize)
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

  /// Copies the array out of strided storage into its dense form.
  ///
  /// - Throws: `TensorError.storage` when either side is too small.
  public func gather(
    from storage: UnsafeRawBufferPointer, into dense: UnsafeMutableRawBufferPointer
  ) throws(TensorError) {
    try check(storage: storage.count, dense: dense.count)
    guard let source = storage.baseAddress, let target = dense.baseAddress, denseByteCount > 0
    else { return }
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

  /// Copies a dense array into strided storage; padding keeps what it had.
  ///
  /// - Throws: `TensorError.storage` when either side is too small.
  public func scatter(
    from dense: UnsafeRawBufferPointer, into storage: UnsafeMutableRawBufferPointer
  ) throws(TensorError) {
    try check(storage: storage.count, dense: dense.count)
    guard let source = dense.baseAddress, let target = storage.baseAddress, denseByteCount > 0
    else { return }
    walk { strided, packed in
      (target + strided).copyMemory(from: source + packed, byteCount: run)
    }
  }

  private func check(storage: Int, dense: Int) throws(TensorError) {
    guard storage >= extent else { throw .storage(needed: extent, found: storage) }
    guard dense >= denseByteCount else { throw .storage(needed: denseByteCount, found: dense) }
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
