/// One latent: floats and their shape.
///
/// The order of its axes is said by the app, or else it is the decoder's own. It is not guessed: an
/// order that is neither said nor the decoder's is taken only where no other fits.
public struct Latent: Sendable, Equatable {
  /// The numbers, in C order of their shape.
  public let values: [Float]
  /// The order of the axes; nil for the decoder's own.
  public let layout: TensorLayout?
  /// Three extents, in the order of `layout`.
  let shape: [Int]

  /// Channels; nil where the decoder's layout tells which axis they are.
  public var channels: Int? { layout.map { map($0).channels } }
  /// Rows, an eighth of the image's; nil where the decoder's layout tells.
  public var height: Int? { layout.map { map($0).height } }
  /// Columns, an eighth of the image's; nil where the decoder's layout tells.
  public var width: Int? { layout.map { map($0).width } }

  /// A latent of plain floats; the number of channels follows from the count.
  ///
  /// - Parameters:
  ///   - values: The numbers in the order of `layout`.
  ///   - height: Rows of the latent: 96 for an image of 768 pixels.
  ///   - width: Columns of the latent.
  ///   - layout: The order of the numbers.
  /// - Throws: `FluxVAEError.latentCount` when the count is not a multiple of the pixels.
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
    let channels = values.count / pixels.partialValue
    self.values = values
    self.layout = layout
    shape = Array(
      layout.shape(channels: channels, height: height, width: width).dropFirst())
  }

  /// A latent of an array's numbers, as many as its shape has.
  ///
  /// - Throws: `FluxVAEError.latentShape` when there are not three axes besides those of length 1.
  init(_ values: [Float], shape given: [Int], layout: TensorLayout?) throws {
    var shape = given.count == 2 && layout == nil ? [1] + given : given  // tokens without a batch
    var layout = layout
    while shape.count > 3, shape.first == 1 { shape.removeFirst() }
    if shape.count == 4, shape[1] == 1, layout != .nhwc {  // channels, one frame, rows, columns
      shape.remove(at: 1)
      layout = .nchw
    }
    guard shape.count == 3, shape.allSatisfy({ $0 > 0 }) else {
      throw FluxVAEError.latentShape(given, layout: layout)
    }
    self.values = values
    self.layout = layout
    self.shape = shape
  }

  /// What `use` makes of the latent in its layout, or else in the decoder's `own`. Where that is
  /// refused the other layout is tried.
  ///
  /// - Throws: What `use` throws of the layout that should have been.
  func read<Value>(
    in own: TensorLayout, _ use: (LatentMap) throws -> Value
  ) throws -> Value {
    do {
      return try use(map(layout ?? own))
    } catch {
      guard layout == nil, let value = try? use(map(own == .nchw ? .nhwc : .nchw)) else {
        throw error
      }
      return value
    }
  }

  /// A matrix of tokens, `(1, rows * columns, channels)`, as the map of the one image size it fits;
  /// nil when it is not such a matrix.
  ///
  /// - Throws: `FluxVAEError.latentAmbiguous` when it fits several.
  func tokens(channels: Int, sizes: [ImageSize], scale: Int) throws -> LatentMap? {
    guard layout == nil, shape[0] == 1, shape[2] == channels else { return nil }
    let fitting = sizes.filter { ($0.height / scale) * ($0.width / scale) == shape[1] }
    guard fitting.count < 2 else {
      throw FluxVAEError.latentAmbiguous(shape, sizes: fitting)
    }
    return fitting.first.map { size in
      LatentMap(
        values: values, layout: .nhwc, channels: channels, height: size.height / scale,
        width: size.width / scale)
    }
  }

  private func map(_ layout: TensorLayout) -> LatentMap {
    let channelsFirst = layout == .nchw
    return LatentMap(
      values: values, layout: layout, channels: shape[channelsFirst ? 0 : 2],
      height: shape[channelsFirst ? 1 : 0], width: shape[channelsFirst ? 2 : 1])
  }
}

/// A latent whose axes are known.
struct LatentMap: Sendable {
  /// The numbers, in the order of `layout`.
  let values: [Float]
  let layout: TensorLayout
  let channels: Int
  let height: Int
  let width: Int

  /// The numbers in the order of `other`.
  func values(in other: TensorLayout) -> [Float] {
    layout.reorder(values, channels: channels, to: other)
  }
}
