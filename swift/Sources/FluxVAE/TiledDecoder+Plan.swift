extension TiledDecoder {
  /// One image in tiles: which functions run, on what.
  struct Plan {
    static let latent = "latent"
    static let features = "features"
    static let statistics = "statistics"

    let record: ArtifactRecord
    let tiles: ArtifactRecord.Tiles
    let size: ImageSize
    let grid: TileGrid

    var scale: Int { record.contract.scale }
    private var layout: TensorLayout { record.recipe.layout }
    private var isTiny: Bool { (record.recipe.decoder ?? "tiny") == "tiny" }

    /// The functions that see the whole map: a KL decoder has one pair for each size.
    var front: String { isTiny ? "front" : "front_\(size.function)" }
    var measure: String { "\(Self.statistics)_\(size.function)" }

    /// - Throws: `FluxVAEError.notADecoder` for a model without tiles, `.smallerThanTile`,
    ///   `.unsupportedSize` for a size that a KL decoder was not made for.
    init(_ record: ArtifactRecord, size: ImageSize) throws {
      guard let tiles = record.tiles else {
        throw FluxVAEError.notADecoder(reason: "this model makes no tiles: use LatentDecoder")
      }
      self.record = record
      self.tiles = tiles
      self.size = size
      guard (record.recipe.decoder ?? "tiny") == "tiny" || record.sizes.contains(size) else {
        throw FluxVAEError.unsupportedSize(size, supported: record.sizes)
      }
      grid = try TileGrid(size, tiles: tiles, scale: record.contract.scale)
    }

    /// - Throws: as the other one, and `.channels` for a latent of another model.
    init(_ record: ArtifactRecord, latent: Latent) throws {
      guard latent.channels == record.contract.channels else {
        throw FluxVAEError.channels(
          expected: record.contract.channels, found: latent.channels)
      }
      let scale = record.contract.scale
      try self.init(
        record, size: ImageSize(height: latent.height * scale, width: latent.width * scale))
    }

    func input(_ latent: Latent) -> Planes {
      Planes(
        values: latent.values(in: layout),
        shape: layout.shape(
          channels: latent.channels, height: latent.height, width: latent.width))
    }

    /// What `measure` is given: all features, in samples; nil for a decoder whose tiles need no
    /// statistics.
    func samples(of features: Planes) -> [Planes]? { tiles.stride.map(features.samples) }

    func block(of features: Planes, _ row: TileCut, _ column: TileCut) -> Planes {
      features.block(
        rows: row.start..<row.start + grid.height,
        columns: column.start..<column.start + grid.width)
    }

    var canvas: TileCanvas { TileCanvas(size: size, layout: layout, scale: scale) }

    /// - Throws: `FluxVAEError.unexpectedOutput`.
    func place(
      _ made: Planes, _ row: TileCut, _ column: TileCut, on canvas: inout TileCanvas
    ) throws {
      let (height, width) = (grid.height * scale, grid.width * scale)
      let expected = layout.shape(channels: 3, height: height, width: width)
      guard made.shape == expected else {
        throw FluxVAEError.unexpectedOutput(expected: expected, found: made.shape)
      }
      canvas.place(made.values, height: height, width: width, row: row, column: column)
    }

    func image(_ canvas: TileCanvas) -> DecodedImage {
      DecodedImage(
        values: canvas.values, size: size, layout: layout, range: record.contract.range)
    }
  }
}
