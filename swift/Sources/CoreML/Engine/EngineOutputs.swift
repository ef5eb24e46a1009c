import Foundation

/// Makes output arrays of an engine's reply.
struct EngineOutputs {
  /// Rows of the last dimension start at multiples of this many bytes; nil packs them.
  let rowAlignment: Int?
  let backings: [String: Any]

  /// The outputs by name. Arrays may take over the payload's memory.
  func values(_ reply: EngineReply, _ payload: EnginePayload) throws -> [String: MLFeatureValue] {
    var values: [String: MLFeatureValue] = [:]
    var offset = 0
    for output in reply.outputs ?? [] {
      guard let type = MLMultiArrayDataType(engineName: output.dtype) else {
        throw MLModelError(
          .featureType,
          "The output feature \(output.name) is an image, and Linux has no pixel "
            + "buffers; use a model with multi-array outputs.")
      }
      let size = output.shape.reduce(type.byteCount, *)
      guard let base = payload.bytes.baseAddress, offset + size <= payload.bytes.count else {
        throw MLModelError(.generic, "The engine's answer is shorter than it says.")
      }
      let array = make(output, type, from: base + offset, in: payload)
      values[output.name] = MLFeatureValue(multiArray: array)
      offset += size
    }
    return values
  }

  private func make(
    _ output: EngineArray, _ type: MLMultiArrayDataType, from source: UnsafeMutableRawPointer,
    in payload: EnginePayload
  ) -> MLMultiArray {
    let dense = ArrayLayout(dense: output.shape)
    if let backing = backings[output.name] as? MLMultiArray,
      backing.layout.shape == output.shape, backing.dataType == type
    {
      copyElements(from: source, dense, type, to: backing.dataPointer, backing.layout, type)
      return backing
    }
    let layout = padded(output.shape, type)
    if layout == dense, UInt(bitPattern: source) % 64 == 0 {
      // The closure keeps the payload alive as long as the array.
      return MLMultiArray(pointer: source, layout: dense, dataType: type) { _ in _ = payload }
    }
    let array = MLMultiArray(allocating: layout, dataType: type)
    // Every bit set is not a number in each float type: reading padding by mistake shows.
    memset(array.dataPointer, 0xFF, layout.allocated * type.byteCount)
    copyElements(from: source, dense, type, to: array.dataPointer, layout, type)
    return array
  }

  private func padded(_ shape: [Int], _ type: MLMultiArrayDataType) -> ArrayLayout {
    guard let rowAlignment, let columns = shape.last else { return ArrayLayout(dense: shape) }
    var (step, rest) = (rowAlignment, type.byteCount)
    while rest != 0 { (step, rest) = (rest, step % rest) }
    step = rowAlignment / step  // elements after which a row's end is aligned again
    return ArrayLayout(shape: shape, row: (columns + step - 1) / step * step)
  }

  /// What `FLUXVAE_OUTPUT_ROW_ALIGNMENT` asks for. Throws `MLModelError.parameters` when it is not
  /// a number of bytes from 1 to a mebibyte.
  static func requestedRowAlignment(_ environment: [String: String]) throws -> Int? {
    guard let text = environment["FLUXVAE_OUTPUT_ROW_ALIGNMENT"], !text.isEmpty else { return nil }
    guard let bytes = Int(text), (1...(1 << 20)).contains(bytes) else {
      throw MLModelError(
        .parameters,
        "FLUXVAE_OUTPUT_ROW_ALIGNMENT is '\(text)'; expected a number of bytes from "
          + "1 to \(1 << 20), such as 64.")
    }
    return bytes
  }
}
