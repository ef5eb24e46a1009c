internal import FluxVAESupport

extension StridedLayout {
  /// - Throws: `TensorError.strides` when they do not describe an array of this shape.
  init(_ shape: [Int], strides: [Int], scalarSize: Int) throws(TensorError) {
    guard let layout = Self(shape: shape, strides: strides, scalarSize: scalarSize) else {
      throw .strides(shape: shape, strides: strides)
    }
    self = layout
  }

  /// Copies the array out of strided storage into its dense form.
  ///
  /// - Throws: `TensorError.storage` when either side is too small.
  func gather(
    from storage: UnsafeRawBufferPointer, into dense: UnsafeMutableRawBufferPointer
  ) throws(TensorError) {
    try check(storage: storage.count, dense: dense.count)
    gather(from: storage.baseAddress, into: dense.baseAddress)
  }

  /// Copies a dense array into strided storage; padding keeps what it had.
  ///
  /// - Throws: `TensorError.storage` when either side is too small.
  func scatter(
    from dense: UnsafeRawBufferPointer, into storage: UnsafeMutableRawBufferPointer
  ) throws(TensorError) {
    try check(storage: storage.count, dense: dense.count)
    scatter(from: dense.baseAddress, into: storage.baseAddress)
  }

  private func check(storage: Int, dense: Int) throws(TensorError) {
    guard storage >= extent else { throw .storage(needed: extent, found: storage) }
    guard dense >= denseByteCount else { throw .storage(needed: denseByteCount, found: dense) }
  }
}
