/// What making an image in tiles costs, and how near the whole decode it comes.
public struct TilingReport: Equatable, Sendable {
  /// How near an image in tiles is to the same decoder's image in one go.
  public enum Promise: Equatable, Sendable {
    /// The same arithmetic on the same numbers: equal where the engine rounds alike at every size.
    case exact
    /// Statistics of the whole: equal but for rounding, 120 dB or more at float32.
    case wholeStatistics
    /// Statistics of strided passes: about 45 dB, 38 or more on photos.
    case stridedStatistics
  }

  public let size: ImageSize
  /// Number of tiles.
  public let tiles: Int
  /// A tile in pixels, with its halo.
  public let tileSize: ImageSize
  /// How often a pixel is computed, on average: the tiles' pixels over the image's. The part that
  /// sees the whole map is not in it.
  public let work: Double
  /// Share of the memory that the whole image would take in its largest part.
  public let memory: Double
  public let promise: Promise

  init(_ grid: TileGrid, size: ImageSize, scale: Int, stride: Int?) {
    self.size = size
    tiles = grid.rows.count * grid.columns.count
    tileSize = ImageSize(height: grid.height * scale, width: grid.width * scale)
    let pixels = Double(size.height * size.width)
    let one = Double(tileSize.height * tileSize.width)
    // Statistics take one more pass over every pixel, in pieces of 1 / stride^2.
    work = (Double(tiles) * one) / pixels + (stride == nil ? 0 : 1)
    let pass = stride.map { 1 / Double($0 * $0) } ?? 0
    memory = max(one / pixels, pass)
    promise =
      switch stride {
      case nil: .exact
      case 1: .wholeStatistics
      default: .stridedStatistics
      }
  }
}
