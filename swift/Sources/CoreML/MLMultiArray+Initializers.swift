import Foundation

extension MLMultiArray {
  /// A one-dimensional array of integers. Stops the program where a value exceeds 32 bits.
  public convenience init<C: Collection>(_ data: C) throws where C.Element: FixedWidthInteger {
    try self.init(shape: [NSNumber(value: data.count)], dataType: .int32)
    let values = dataPointer.bindMemory(to: Int32.self, capacity: count)
    for (index, element) in data.enumerated() { values[index] = Int32(element) }
  }

  /// A one-dimensional array of single-precision numbers.
  public convenience init<C: Collection>(_ data: C) throws where C.Element == Float {
    try self.init(shape: [NSNumber(value: data.count)], dataType: .float32)
    let values = dataPointer.bindMemory(to: Float.self, capacity: count)
    for (index, element) in data.enumerated() { values[index] = element }
  }

  /// A one-dimensional array of double-precision numbers.
  public convenience init<C: Collection>(_ data: C) throws where C.Element == Double {
    try self.init(shape: [NSNumber(value: data.count)], dataType: .double)
    let values = dataPointer.bindMemory(to: Double.self, capacity: count)
    for (index, element) in data.enumerated() { values[index] = element }
  }

  /// A copy of a shaped array.
  public convenience init<ShapedArray: MLShapedArrayProtocol>(_ shapedArray: ShapedArray) {
    let dataType = ShapedArray.Scalar.multiArrayDataType
    let layout = ArrayLayout(dense: shapedArray.shape)
    self.init(allocating: layout, dataType: dataType)
    shapedArray.withUnsafeShapedBufferPointer { source, shape, strides in
      guard let base = source.baseAddress else { return }
      copyElements(
        from: base, ArrayLayout(shape: shape, strides: strides), dataType,
        to: dataPointer, layout, dataType)
    }
  }

  /// Copies the elements into another array of the same shape, converting type and layout.
  public func transfer(to destination: MLMultiArray) {
    precondition(layout.shape == destination.layout.shape, "the two shapes differ")
    copyElements(
      from: dataPointer, layout, dataType,
      to: destination.dataPointer, destination.layout, destination.dataType)
  }
}
