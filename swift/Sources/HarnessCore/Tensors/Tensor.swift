internal import FluxVAESupport
import Foundation

/// A dense array in C order: shape, scalar type and little-endian bytes.
public struct Tensor: Equatable, Sendable {
  public let dtype: ScalarType
  public let shape: [Int]
  public let bytes: [UInt8]

  /// Number of scalars.
  public var count: Int { bytes.count / dtype.byteCount }

  /// Takes bytes as they are.
  ///
  /// - Throws: `TensorError.length` when there are not exactly as many as shape and type need.
  public init(dtype: ScalarType, shape: [Int], bytes: [UInt8]) throws(TensorError) {
    let expected = try Self.byteCount(dtype: dtype, shape: shape)
    guard bytes.count == expected else {
      throw .length(shape: shape, dtype: dtype, expected: expected, found: bytes.count)
    }
    self.init(unchecked: dtype, shape: shape, bytes: bytes)
  }

  private init(unchecked dtype: ScalarType, shape: [Int], bytes: [UInt8]) {
    self.dtype = dtype
    self.shape = shape
    self.bytes = bytes
  }

  /// Values to be stored as `dtype`, floats rounded to nearest even.
  ///
  /// - Throws: `TensorError.length` when values and shape do not fit; `.conversion` to int32.
  public init(_ values: [Float], shape: [Int], dtype: ScalarType) throws(TensorError) {
    let floats = try Tensor(
      dtype: .float32, shape: shape,
      bytes: values.withUnsafeBytes { Array($0) })
    self = try floats.converted(to: dtype)
  }

  /// How many bytes a dense array takes.
  ///
  /// - Throws: `TensorError.shape` for a negative extent or more bytes than an `Int` counts.
  public static func byteCount(dtype: ScalarType, shape: [Int]) throws(TensorError) -> Int {
    var product = dtype.byteCount
    for extent in shape {
      let (next, overflow) = product.multipliedReportingOverflow(by: extent)
      guard extent >= 0, !overflow else { throw .shape(shape) }
      product = next
    }
    return product
  }

  /// All values in C order, exactly.
  public func doubles() -> [Double] {
    switch dtype {
    case .float16: map(UInt16.self) { Double(Half.float($0)) }
    case .float32: map(UInt32.self) { Double(Float(bitPattern: $0)) }
    case .float64: map(UInt64.self) { Double(bitPattern: $0) }
    case .int32: map(Int32.self) { Double($0) }
    }
  }

  /// The same values in another type: wider is exact, narrower rounds to nearest even.
  ///
  /// - Throws: `TensorError.conversion` between floats and integers.
  public func converted(to other: ScalarType) throws(TensorError) -> Tensor {
    if other == dtype { return self }
    guard dtype != .int32 else { throw .conversion(from: dtype, to: other) }
    let bytes: [UInt8]
    switch (dtype, other) {
    case (.float32, .float16):
      bytes = Self.bytes(map(UInt32.self) { Half.pattern(Float(bitPattern: $0)) })
    case (.float16, .float32):
      bytes = Self.bytes(map(UInt16.self) { Half.float($0) })
    case (_, .float64):
      bytes = Self.bytes(doubles())
    case (.float64, .float32):
      bytes = Self.bytes(map(UInt64.self) { Float(Double(bitPattern: $0)) })
    default:  // float64 to float16 would round twice, and nothing here needs it
      throw .conversion(from: dtype, to: other)
    }
    return Tensor(unchecked: other, shape: shape, bytes: bytes)
  }

  private func map<Pattern: BitwiseCopyable, Value>(
    _ type: Pattern.Type, _ transform: (Pattern) -> Value
  ) -> [Value] {
    let size = MemoryLayout<Pattern>.size
    return bytes.withUnsafeBytes { raw in
      [Value](unsafeUninitializedCapacity: raw.count / size) { buffer, filled in
        for index in 0..<raw.count / size {
          let pattern = raw.loadUnaligned(fromByteOffset: index * size, as: Pattern.self)
          buffer.initializeElement(at: index, to: transform(pattern))
        }
        filled = raw.count / size
      }
    }
  }

  private static func bytes<Value: BitwiseCopyable>(_ values: [Value]) -> [UInt8] {
    values.withUnsafeBytes { Array($0) }
  }
}
