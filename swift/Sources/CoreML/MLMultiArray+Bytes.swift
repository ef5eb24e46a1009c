extension MLMultiArray {
  /// The array's memory, from the first element to the last; no padding after the last one.
  public func withUnsafeBytes<R>(
    _ body: (_ ptr: UnsafeRawBufferPointer) throws -> R
  ) rethrows -> R {
    try body(UnsafeRawBufferPointer(start: dataPointer, count: byteSpan))
  }

  /// The array's memory to write to, with the strides that hold for it, in elements.
  public func withUnsafeMutableBytes<R>(
    _ body: (_ ptr: UnsafeMutableRawBufferPointer, _ strides: [Int]) throws -> R
  ) rethrows -> R {
    try body(
      UnsafeMutableRawBufferPointer(start: dataPointer, count: byteSpan), layout.strides)
  }

  /// The array's memory as elements. `type` must be the array's own element type.
  public func withUnsafeBufferPointer<S: MLShapedArrayScalar, R>(
    ofType type: S.Type, _ body: (_ ptr: UnsafeBufferPointer<S>) throws -> R
  ) rethrows -> R {
    precondition(type.multiArrayDataType == dataType, "the array's elements are not \(type)")
    return try withUnsafeBytes { try body($0.bindMemory(to: type)) }
  }

  /// The array's memory as elements to write to. `type` must be the array's own element type.
  public func withUnsafeMutableBufferPointer<S: MLShapedArrayScalar, R>(
    ofType type: S.Type,
    _ body: (_ ptr: UnsafeMutableBufferPointer<S>, _ strides: [Int]) throws -> R
  ) rethrows -> R {
    precondition(type.multiArrayDataType == dataType, "the array's elements are not \(type)")
    return try withUnsafeMutableBytes { try body($0.bindMemory(to: type), $1) }
  }

  private var byteSpan: Int { layout.span * dataType.byteCount }
}
