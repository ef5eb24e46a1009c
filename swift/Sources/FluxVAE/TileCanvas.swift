/// An image that is put together from tiles, in the model's layout.
struct TileCanvas: Sendable {
  let size: ImageSize
  let layout: TensorLayout
  let scale: Int
  private(set) var values: [Float]

  init(size: ImageSize, layout: TensorLayout, scale: Int) {
    self.size = size
    self.layout = layout
    self.scale = scale
    values = [Float](repeating: 0, count: 3 * size.height * size.width)
  }

  /// Copies what a tile answers for.
  ///
  /// - Parameters:
  ///   - tile: A whole tile of the image, with its halo.
  ///   - width: Its pixels in a line.
  mutating func place(_ tile: [Float], height: Int, width: Int, row: TileCut, column: TileCut) {
    let rows = row.kept.lowerBound * scale..<row.kept.upperBound * scale
    let columns = column.kept.lowerBound * scale..<column.kept.upperBound * scale
    let (top, left) = (row.start * scale, column.start * scale)
    // One run of numbers for each line: of one plane, or of all three channels of its pixels.
    let (planes, numbers) = layout == .nchw ? (3, 1) : (1, 3)
    for plane in 0..<planes {
      for line in rows {
        let from = ((plane * height + line - top) * width + columns.lowerBound - left) * numbers
        let to = ((plane * size.height + line) * size.width + columns.lowerBound) * numbers
        let count = columns.count * numbers
        values.replaceSubrange(to..<to + count, with: tile[from..<from + count])
      }
    }
  }
}
