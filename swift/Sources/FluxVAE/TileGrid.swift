/// A tile along one axis, in latent pixels: it reads from `start` on, and answers for `kept`.
struct TileCut: Equatable, Sendable {
  let start: Int
  let kept: Range<Int>

  /// Tiles of `size` over an axis of `total`, each `halo` away from what it leaves out; the image's
  /// own ends need no halo. The last tile ends where the axis does: all have one size.
  ///
  /// The same rule as `fluxvae/artifact/tiles.py`. Nil when a tile is larger than the axis, or all halo.
  static func cuts(of total: Int, size: Int, halo: Int) -> [TileCut]? {
    if total == size { return [TileCut(start: 0, kept: 0..<total)] }
    guard size > 2 * halo, total > size else { return nil }
    let step = size - 2 * halo
    let count = 1 + (total - size + step - 1) / step
    let starts = (0..<count).map { min($0 * step, total - size) }
    let bounds = [0] + starts.dropFirst().map { $0 + halo } + [total]
    return zip(starts, zip(bounds, bounds.dropFirst())).map { start, ends in
      TileCut(start: start, kept: ends.0..<ends.1)
    }
  }
}

/// All tiles of an image: each row with each column.
struct TileGrid: Equatable, Sendable {
  let rows: [TileCut]
  let columns: [TileCut]
  /// The function that makes the tiles.
  let function: String
  /// Rows and columns in latent pixels of what a tile is made from.
  let height: Int
  let width: Int

  /// - Throws: `FluxVAEError.smallerThanTile`.
  init(_ size: ImageSize, tiles: ArtifactRecord.Tiles, scale: Int) throws {
    let own = "tile_\(size.function)"
    function = tiles.shapes[own] == nil ? "tile" : own
    let shape = tiles.shapes[function] ?? [0, 0]  // no tile fits then
    (height, width) = (shape[0], shape[1])
    guard
      let rows = TileCut.cuts(of: size.height / scale, size: height, halo: tiles.halo),
      let columns = TileCut.cuts(of: size.width / scale, size: width, halo: tiles.halo)
    else {
      throw FluxVAEError.smallerThanTile(
        size, tile: ImageSize(height: height * scale, width: width * scale))
    }
    self.rows = rows
    self.columns = columns
  }

  var cells: [(row: TileCut, column: TileCut)] {
    rows.flatMap { row in columns.map { (row, $0) } }
  }
}
