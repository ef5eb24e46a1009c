import Testing

@testable import FluxVAE

/// Where tiles lie, how they are put together, and what they cost.
struct TileGridTests {
  @Test(arguments: [(19, 9, 19), (19, 9, 24), (73, 9, 128), (73, 9, 168), (15, 7, 100), (20, 0, 64)])
  func everyPlaceIsMadeOnceAndKnowsItsSurroundings(size: Int, halo: Int, total: Int) throws {
    let tiles = try #require(TileCut.cuts(of: total, size: size, halo: halo))
    #expect(tiles.flatMap { Array($0.kept) } == Array(0..<total))
    for tile in tiles {
      #expect(tile.start >= 0 && tile.start + size <= total)
      #expect(tile.start <= max(0, tile.kept.lowerBound - halo))
      #expect(min(total, tile.kept.upperBound + halo) <= tile.start + size)
    }
  }

  @Test func twoTilesOfHalfAnImageMakeIt() throws {
    let tiles = try #require(TileCut.cuts(of: 128, size: 73, halo: 9))
    #expect(tiles == [TileCut(start: 0, kept: 0..<64), TileCut(start: 55, kept: 64..<128)])
  }

  @Test func tilesThatCannotBeAreNone() {
    #expect(TileCut.cuts(of: 64, size: 18, halo: 9) == nil)
    #expect(TileCut.cuts(of: 18, size: 19, halo: 9) == nil)
  }

  @Test func anImageSmallerThanATileIsRefused() {
    let tiles = ArtifactRecord.Tiles(shapes: ["tile": [19, 19]], halo: 9, stride: nil)
    let small = ImageSize(height: 144, width: 256)
    #expect(throws: FluxVAEError.smallerThanTile(small, tile: ImageSize(152))) {
      try TileGrid(small, tiles: tiles, scale: 8)
    }
  }

  @Test func anImagesOwnTilesAreTaken() throws {
    let tiles = ArtifactRecord.Tiles(
      shapes: ["tile": [73, 73], "tile_h832w1216": [61, 85]], halo: 9, stride: nil)
    let own = try TileGrid(ImageSize(height: 832, width: 1216), tiles: tiles, scale: 8)
    #expect(own.function == "tile_h832w1216" && own.cells.count == 4)
    #expect((own.height, own.width) == (61, 85))
    let other = try TileGrid(ImageSize(1024), tiles: tiles, scale: 8)
    #expect(other.function == "tile" && other.cells.count == 4)
  }

  @Test func reportsCountPixels() throws {
    let size = ImageSize(1024)
    let whole = ArtifactRecord.Tiles(shapes: ["tile": [73, 73]], halo: 9, stride: nil)
    let report = TilingReport(
      try TileGrid(size, tiles: whole, scale: 8), size: size, scale: 8, stride: nil)
    #expect(report.tiles == 4 && report.tileSize == ImageSize(584) && report.promise == .exact)
    #expect(abs(report.work - 1.301) < 1e-3 && report.memory < 1.0 / 3)
    let strided = TilingReport(
      try TileGrid(size, tiles: whole, scale: 8), size: size, scale: 8, stride: 2)
    #expect(abs(strided.work - 2.301) < 1e-3 && strided.promise == .stridedStatistics)
  }

  @Test func blocksAreCutAndStrided() {
    let planes = Planes(values: (0..<24).map(Float.init), shape: [1, 2, 3, 4])
    let block = planes.block(rows: 1..<3, columns: 2..<4)
    #expect(block == Planes(values: [6, 7, 10, 11, 18, 19, 22, 23], shape: [1, 2, 2, 2]))
    let strided = planes.block(rows: [0, 2], columns: [1, 3])
    #expect(strided == Planes(values: [1, 3, 9, 11, 13, 15, 21, 23], shape: [1, 2, 2, 2]))
  }

  @Test func samplesTakeEveryPlaceOnceInBlocks() {
    #expect(Planes.places(8, 2) == [[0, 1, 2, 3], [4, 5, 6, 7]])
    #expect(Planes.places(12, 2) == [[0, 1, 4, 5, 8, 9], [2, 3, 6, 7, 10, 11]])
    #expect(Planes.places(6, 2) == [[0, 2, 4], [1, 3, 5]])
    #expect(Planes.places(32, 2)[0] == Array(0..<8) + Array(16..<24))
    #expect(Planes.places(5, 1) == [[0, 1, 2, 3, 4]])
    let planes = Planes(values: (0..<24).map(Float.init), shape: [1, 1, 4, 6])
    let samples = planes.samples(2)
    #expect(samples.map(\.shape) == Array(repeating: [1, 1, 2, 3], count: 4))
    #expect(samples.flatMap(\.values).sorted() == planes.values)
    #expect(samples[1].values == [1, 3, 5, 7, 9, 11])
  }

  @Test func pooledStatisticsAreThoseOfAllNumbers() throws {
    // Samples 1, 3 and 5, 9: means 2 and 7, deviations 1 and 2; together mean 4.5, variance 8.75.
    let parts = [[2, 1], [7, 2]].map { Planes(values: $0, shape: [1, 1, 1, 2]) }
    let all = try #require(Planes.pooled(parts))
    #expect(all.values[0] == 4.5)
    #expect(abs(all.values[1] - Float(8.75).squareRoot()) < 1e-6)
    #expect(Planes.pooled([parts[0]]) == parts[0])
    #expect(Planes.pooled([]) == nil)
  }

  @Test(arguments: TensorLayout.allCases)
  func tilesArePlacedInEitherLayout(layout: TensorLayout) {
    var canvas = TileCanvas(
      size: ImageSize(height: 2, width: 3), layout: layout, scale: 1)
    let tile: [Float] = (0..<12).map(Float.init)  // 2 x 2 pixels of three channels
    let row = TileCut(start: 0, kept: 0..<2)
    canvas.place(tile, height: 2, width: 2, row: row, column: TileCut(start: 1, kept: 2..<3))
    let expected: [Float] =
      layout == .nchw
      ? [0, 0, 1, 0, 0, 3, 0, 0, 5, 0, 0, 7, 0, 0, 9, 0, 0, 11]
      : [0, 0, 0, 0, 0, 0, 3, 4, 5, 0, 0, 0, 0, 0, 0, 9, 10, 11]
    #expect(canvas.values == expected)
  }
}
