/// What a decoder made of a latent: RGB floats, not clamped.
public struct DecodedImage: Sendable, Equatable {
  /// The numbers, in the order of `layout`; three channels.
  public let values: [Float]
  public let size: ImageSize
  /// The model's own layout.
  public let layout: TensorLayout
  /// The values that black and white stand for; nil when the model has no contract to say so.
  ///
  /// Photos go about 0.1 beyond either end.
  public let range: ClosedRange<Float>?

  /// The numbers in the order of `layout`, whatever order the model gave them in.
  public func values(in layout: TensorLayout) -> [Float] {
    self.layout.reorder(values, channels: 3, to: layout)
  }

  /// 8-bit RGB, one pixel after the other, rows from the top without padding.
  ///
  /// Clamped to the range and rounded to nearest (ties to even), as `fluxvae decode` writes its
  /// pictures. All values are finite: a decode that gives others throws.
  ///
  /// - Parameter range: What black and white stand for, where the model does not say.
  /// - Throws: `FluxVAEError.unknownRange` when neither does.
  public func rgb8(range: ClosedRange<Float>? = nil) throws -> [UInt8] {
    guard let range = range ?? self.range, range.lowerBound < range.upperBound else {
      throw FluxVAEError.unknownRange
    }
    let scale = 255 / (range.upperBound - range.lowerBound)
    return values(in: .nhwc).map { value in
      let level = (value - range.lowerBound) * scale
      return level > 0 ? UInt8(min(level, 255).rounded(.toNearestOrEven)) : 0
    }
  }
}

extension DecodedImage {
  /// - Throws: `FluxVAEError.nonFinite` when a value is NaN or infinite.
  init(
    checking values: [Float], size: ImageSize, layout: TensorLayout, range: ClosedRange<Float>?
  ) throws {
    try values.checkFinite("image")
    self.init(values: values, size: size, layout: layout, range: range)
  }
}
