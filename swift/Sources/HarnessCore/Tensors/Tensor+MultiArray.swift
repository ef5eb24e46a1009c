import CoreML
internal import FluxVAESupport
import Foundation

extension Tensor {
  /// Reads an array of Core ML, whatever its strides.
  ///
  /// - Throws: `ModelFault.unreadable` for a scalar type that decoders do not have;
  ///   `TensorError` for strides that describe no array.
  public init(_ array: MLMultiArray, name: String = "the output") throws {
    guard let dtype = ScalarType(array.dataType) else { throw ModelFault.unreadable(feature: name) }
    let layout = try StridedLayout(
      array.shape.map(\.intValue), strides: array.strides.map(\.intValue),
      scalarSize: dtype.byteCount)
    let bytes = try [UInt8](unsafeUninitializedCapacity: layout.denseByteCount) { buffer, filled in
      try array.withUnsafeBytes { storage in
        // Apple does not say whether the count covers the padding; the strides are the contract.
        let whole = UnsafeRawBufferPointer(
          start: storage.baseAddress, count: max(storage.count, layout.extent))
        try layout.gather(from: whole, into: UnsafeMutableRawBufferPointer(buffer))
      }
      filled = layout.denseByteCount
    }
    try self.init(dtype: dtype, shape: layout.shape, bytes: bytes)
  }

  /// A new array of Core ML with the same scalars, written by the strides it has.
  ///
  /// - Throws: what Core ML throws for a shape it does not take.
  public func multiArray() throws -> MLMultiArray {
    let array = try MLMultiArray(
      shape: shape.map { NSNumber(value: $0) }, dataType: dtype.multiArrayType)
    try array.withUnsafeMutableBytes { storage, strides in
      let layout = try StridedLayout(shape, strides: strides, scalarSize: dtype.byteCount)
      let whole = UnsafeMutableRawBufferPointer(
        start: storage.baseAddress, count: max(storage.count, layout.extent))
      try bytes.withUnsafeBytes { try layout.scatter(from: $0, into: whole) }
    }
    return array
  }
}
