/// One latent: floats, their shape, and the order they are in.
public struct Latent: Sendable, Equatable {
  /// The numbers, in the order of `layout`.
  public let values: [Float]
  public let channels: Int
  /// Rows, an eighth of the image's.
  public let height: Int
  /// Columns, an eighth of the image's.
  public let width: Int
  public let layout: TensorLayout

  /// A latent of plain floats; the number of channels follows from the count.
  ///
  /// - Parameters:
  ///   - values: The numbers in the order of `layout`.
  ///   - height: Rows of the latent: 96 for an image of 768 pixels.
  ///   - width: Columns of the latent.
  ///   - layout: The order of the numbers.
  /// - Throws: `FluxVAEError.latentCount` when the count is no multiple of the pixels.
  public init(
    _ values: [Float], height: Int, width: Int, layout: TensorLayout = .nchw
  ) throws {
    let pixels = max(height, 0).multipliedReportingOverflow(by: max(width, 0))
    guard
      !pixels.overflow, pixels.partialValue > 0, !values.isEmpty,
      values.count.isMultiple(of: pixels.partialValue)
    else {
      throw FluxVAEError.latentCount(count: values.count, height: height, width: width)
    }
    self.values = values
    self.channels = values.count / pixels.partialValue
    self.height = height
    self.width = width
    self.layout = layout
  }

  /// The numbers in the order of `layout`, whatever order this latent has.
  func values(in layout: TensorLayout) -> [Float] {
    self.layout.reorder(values, channels: channels, to: layout)
  }
}
