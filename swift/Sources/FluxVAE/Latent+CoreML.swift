import CoreML
internal import FluxVAESupport

extension Latent {
  /// A copy of an array: `(C, h, w)`, `(h, w, C)`, or `(h * w, C)` for a decoder of tokens. Axes of length 1 in front, and one of frames after the channels, are left out.
  ///
  /// Padded strides are read right. Because it copies, the latent may travel to another task,
  /// which the array may not.
  ///
  /// - Parameter layout: The order of the axes; nil for the decoder's own.
  /// - Throws: `FluxVAEError.latentShape`, `.strides` or `.elementType`, with what came.
  public init(_ array: MLMultiArray, layout: TensorLayout? = nil) throws {
    try self.init(array.floats(), shape: array.shape.map(\.intValue), layout: layout)
  }

  /// A copy of a shaped array, of a shape as for a multi-array.
  ///
  /// - Parameter layout: The order of the axes; nil for the decoder's own.
  /// - Throws: `FluxVAEError.latentShape`, `.strides` or `.elementType`, with what came.
  public init<Scalar: MLShapedArrayScalar & BinaryFloatingPoint>(
    _ array: MLShapedArray<Scalar>, layout: TensorLayout? = nil
  ) throws {
    let values = try array.withUnsafeShapedBufferPointer { buffer, shape, strides in
      try StridedLayout(shape, strides: strides, type: Scalar.multiArrayDataType)
        .floats(UnsafeRawPointer(buffer.baseAddress))
    }
    try self.init(values, shape: array.shape, layout: layout)
  }
}
