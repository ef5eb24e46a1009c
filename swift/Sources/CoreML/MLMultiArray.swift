import Foundation

/// An array of numbers with a shape and strides.
///
/// `init(pixelBuffer:shape:)`, `pixelBuffer` and coding are not declared on Linux. Memory made here
/// is aligned to 64 bytes and not initialised, as with Apple's.
open class MLMultiArray: NSObject {
  public let dataType: MLMultiArrayDataType
  public let shape: [NSNumber]
  public let strides: [NSNumber]
  /// The number of elements.
  public let count: Int
  /// The first element. Prefer `withUnsafeBytes`.
  public let dataPointer: UnsafeMutableRawPointer

  let layout: ArrayLayout
  private let deallocator: ((UnsafeMutableRawPointer) -> Void)?

  init(
    pointer: UnsafeMutableRawPointer, layout: ArrayLayout, dataType: MLMultiArrayDataType,
    deallocator: ((UnsafeMutableRawPointer) -> Void)?
  ) {
    self.dataType = dataType
    self.layout = layout
    self.deallocator = deallocator
    shape = layout.shape.map { NSNumber(value: $0) }
    strides = layout.strides.map { NSNumber(value: $0) }
    count = layout.count
    dataPointer = pointer
  }

  deinit { deallocator?(dataPointer) }

  /// A dense array in first-major order. Throws `MLModelError.generic` for a negative dimension,
  /// an unknown element type or a size beyond what can be addressed.
  public convenience init(shape: [NSNumber], dataType: MLMultiArrayDataType) throws {
    let sizes = shape.map(\.intValue)
    let layout = try ArrayLayout(dense: sizes, elementBytes: dataType.checkedByteCount())
    self.init(allocating: layout, dataType: dataType)
  }

  /// An array with strides of the caller's, in elements.
  ///
  /// Like Apple's it does not throw: impossible arguments are a programming error and stop the
  /// program.
  public convenience init(shape: [Int], dataType: MLMultiArrayDataType, strides: [Int]) {
    precondition(dataType.isKnown, "unknown multi-array data type \(dataType.rawValue)")
    precondition(shape.count == strides.count, "as many strides as dimensions are needed")
    precondition((shape + strides).allSatisfy { $0 >= 0 }, "dimensions and strides from 0 up")
    self.init(allocating: ArrayLayout(shape: shape, strides: strides), dataType: dataType)
  }

  /// An array over memory of the caller's, which `deallocator` frees. Nothing is copied.
  public convenience init(
    dataPointer: UnsafeMutableRawPointer, shape: [NSNumber], dataType: MLMultiArrayDataType,
    strides: [NSNumber], deallocator: ((UnsafeMutableRawPointer) -> Void)? = nil
  ) throws {
    let layout = try ArrayLayout(
      checkedShape: shape.map(\.intValue), strides: strides.map(\.intValue),
      elementBytes: dataType.checkedByteCount())
    self.init(pointer: dataPointer, layout: layout, dataType: dataType, deallocator: deallocator)
  }

  convenience init(allocating layout: ArrayLayout, dataType: MLMultiArrayDataType) {
    let pointer = UnsafeMutableRawPointer.allocate(
      byteCount: max(1, layout.allocated * dataType.byteCount), alignment: 64)
    self.init(pointer: pointer, layout: layout, dataType: dataType) { $0.deallocate() }
  }

  /// The element at a position in logical first-major order, whatever the strides.
  open subscript(index: Int) -> NSNumber {
    get { dataType.number(at: dataPointer, offset: layout.offset(ofLinear: index)) }
    set { dataType.store(newValue, at: dataPointer, offset: layout.offset(ofLinear: index)) }
  }

  /// The element at an index for each dimension.
  open subscript(key: [NSNumber]) -> NSNumber {
    get { dataType.number(at: dataPointer, offset: layout.offset(of: key.map(\.intValue))) }
    set {
      dataType.store(newValue, at: dataPointer, offset: layout.offset(of: key.map(\.intValue)))
    }
  }
}
