import CoreML

extension Latent {
  /// A copy of an array of shape `(1, C, h, w)` or `(C, h, w)`, or the same in NHWC.
  ///
  /// Padded strides are read right. Because it copies, the latent may travel to another task,
  /// which the array may not.
  ///
  /// - Throws: `FluxVAEError.latentShape` or `.elementType`, with what came.
  public init(_ array: MLMultiArray, layout: TensorLayout = .nchw) throws {
    try self.init(array.floats(), shape: array.shape.map(\.intValue), layout: layout)
  }

  /// The numbers of a shaped array of shape `(1, C, h, w)` or `(C, h, w)`, or the same in NHWC.
  ///
  /// - Throws: `FluxVAEError.latentShape`, with what came.
  public init<Scalar: MLShapedArrayScalar & BinaryFloatingPoint>(
    _ array: MLShapedArray<Scalar>, layout: TensorLayout = .nchw
  ) throws {
    try self.init(array.scalars.map { Float($0) }, shape: array.shape, layout: layout)
  }

  private init(_ values: [Float], shape: [Int], layout: TensorLayout) throws {
    guard let axes = layout.split(shape) else {
      throw FluxVAEError.latentShape(shape, layout: layout)
    }
    try self.init(values, height: axes.height, width: axes.width, layout: layout)
  }
}
