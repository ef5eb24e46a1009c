import Foundation

/// An array value with a shape, held without gaps in first-major order.
public struct MLShapedArray<Scalar: MLShapedArrayScalar>: MLShapedArrayProtocol {
  public typealias ArrayLiteralElement = Scalar

  public let shape: [Int]
  public var strides: [Int] { ArrayLayout(dense: shape).strides }
  private var elements: [Scalar]

  /// Takes a copy and then has `deallocator` free the bytes: Apple's keeps them.
  public init(
    bytesNoCopy bytes: UnsafeRawPointer, shape: [Int], strides: [Int],
    deallocator: Data.Deallocator
  ) {
    let layout = ArrayLayout(shape: shape, strides: strides)
    let data = Data(
      bytesNoCopy: UnsafeMutableRawPointer(mutating: bytes),
      count: layout.span * Scalar.multiArrayDataType.byteCount, deallocator: deallocator)
    self.init(data: data, shape: shape, strides: strides)
  }

  public init(data: Data, shape: [Int]) {
    self.init(data: data, shape: shape, strides: ArrayLayout(dense: shape).strides)
  }

  /// A copy of raw elements. Stops the program when there are fewer bytes than the shape needs.
  public init(data: Data, shape: [Int], strides: [Int]) {
    let layout = ArrayLayout(shape: shape, strides: strides)
    let type = Scalar.multiArrayDataType
    precondition(data.count >= layout.span * type.byteCount, "\(data.count) bytes for \(shape)")
    self.init(unsafeUninitializedShape: shape) { buffer, _ in
      data.withUnsafeBytes { bytes in
        guard let source = bytes.baseAddress, let target = buffer.baseAddress else { return }
        copyElements(from: source, layout, type, to: target, ArrayLayout(dense: shape), type)
      }
    }
  }

  /// An array whose elements `initializer` writes, every one of them.
  public init(
    unsafeUninitializedShape shape: [Int],
    initializingWith initializer: (
      _ ptr: inout UnsafeMutableBufferPointer<Scalar>, _ strides: [Int]
    ) throws -> Void
  ) rethrows {
    precondition(shape.allSatisfy { $0 >= 0 }, "\(shape) holds a negative size")
    let layout = ArrayLayout(dense: shape)
    self.shape = shape
    elements = try [Scalar](unsafeUninitializedCapacity: layout.count) { buffer, initialized in
      var whole = UnsafeMutableBufferPointer(rebasing: buffer[..<layout.count])
      try initializer(&whole, layout.strides)
      initialized = layout.count
    }
  }

  public init(scalar: Scalar) {
    self.init(scalars: [scalar], shape: [])
  }

  public subscript<C: Collection>(scalarAt indices: C) -> Scalar where C.Element == Int {
    get { elements[ArrayLayout(dense: shape).offset(of: Array(indices))] }
    set { elements[ArrayLayout(dense: shape).offset(of: Array(indices))] = newValue }
  }

  public func withUnsafeShapedBufferPointer<R>(
    _ body: (_ ptr: UnsafeBufferPointer<Scalar>, _ shape: [Int], _ strides: [Int]) throws -> R
  ) rethrows -> R {
    try elements.withUnsafeBufferPointer { try body($0, shape, strides) }
  }

  public mutating func withUnsafeMutableShapedBufferPointer<R>(
    _ body: (
      _ ptr: inout UnsafeMutableBufferPointer<Scalar>, _ shape: [Int], _ strides: [Int]
    ) throws -> R
  ) rethrows -> R {
    let (shape, strides) = (shape, strides)
    return try elements.withUnsafeMutableBufferPointer { try body(&$0, shape, strides) }
  }
}

extension MLShapedArray: Sendable where Scalar: Sendable {}
extension MLShapedArray: Equatable where Scalar: Equatable {}
