import Foundation

/// What shaped arrays share. Slices and the collection conformances of Apple's are not declared.
public protocol MLShapedArrayProtocol: ExpressibleByArrayLiteral {
  associatedtype Scalar: MLShapedArrayScalar

  init(
    bytesNoCopy bytes: UnsafeRawPointer, shape: [Int], strides: [Int],
    deallocator: Data.Deallocator)
  init(
    unsafeUninitializedShape shape: [Int],
    initializingWith initializer: (
      _ ptr: inout UnsafeMutableBufferPointer<Scalar>, _ strides: [Int]
    ) throws -> Void) rethrows

  var shape: [Int] { get }
  var strides: [Int] { get }
  subscript<C: Collection>(scalarAt indices: C) -> Scalar where C.Element == Int { get set }

  func withUnsafeShapedBufferPointer<R>(
    _ body: (_ ptr: UnsafeBufferPointer<Scalar>, _ shape: [Int], _ strides: [Int]) throws -> R
  ) rethrows -> R
  mutating func withUnsafeMutableShapedBufferPointer<R>(
    _ body: (
      _ ptr: inout UnsafeMutableBufferPointer<Scalar>, _ shape: [Int], _ strides: [Int]
    ) throws -> R
  ) rethrows -> R
}

extension MLShapedArrayProtocol {
  public init(arrayLiteral elements: Scalar...) {
    self.init(scalars: elements, shape: [elements.count])
  }

  public init(repeating value: Scalar, shape: [Int]) {
    self.init(unsafeUninitializedShape: shape) { buffer, _ in buffer.initialize(repeating: value) }
  }

  /// Elements in first-major order. Stops the program when their number does not fit the shape.
  public init<S: Sequence>(scalars: S, shape: [Int]) where S.Element == Scalar {
    let elements = Array(scalars)
    precondition(elements.count == shape.reduce(1, *), "\(elements.count) scalars for \(shape)")
    self.init(unsafeUninitializedShape: shape) { buffer, _ in
      _ = buffer.initialize(from: elements)
    }
  }

  public init(bytesNoCopy bytes: UnsafeRawPointer, shape: [Int], deallocator: Data.Deallocator) {
    self.init(
      bytesNoCopy: bytes, shape: shape, strides: ArrayLayout(dense: shape).strides,
      deallocator: deallocator)
  }

  /// A copy of a multi-array, whose element type must be `Scalar`.
  public init(_ multiArray: MLMultiArray) {
    precondition(
      multiArray.dataType == Scalar.multiArrayDataType,
      "the array's elements are not \(Scalar.self)")
    self.init(converting: multiArray)
  }

  /// A copy of a multi-array, its elements converted.
  public init(converting multiArray: MLMultiArray) {
    self.init(unsafeUninitializedShape: multiArray.layout.shape) { buffer, _ in
      guard let base = buffer.baseAddress else { return }
      copyElements(
        from: multiArray.dataPointer, multiArray.layout, multiArray.dataType,
        to: base, ArrayLayout(dense: multiArray.layout.shape), Scalar.multiArrayDataType)
    }
  }

  public var isScalar: Bool { shape.isEmpty }
  public var count: Int { shape.first ?? 0 }
  public var scalarCount: Int { shape.reduce(1, *) }

  /// Every element, in first-major order.
  public var scalars: [Scalar] {
    get { withUnsafeShapedBufferPointer { buffer, _, _ in Array(buffer) } }
    set { self = Self(scalars: newValue, shape: shape) }
  }

  public subscript(scalarAt indices: Int...) -> Scalar {
    get { self[scalarAt: indices] }
    set { self[scalarAt: indices] = newValue }
  }

  public mutating func fill(with value: Scalar) {
    withUnsafeMutableShapedBufferPointer { buffer, _, _ in buffer.update(repeating: value) }
  }
}
