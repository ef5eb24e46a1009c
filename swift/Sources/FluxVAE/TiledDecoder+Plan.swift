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
    /// Nil for a decoder whose tiles need no statistics.
    var measure: String? { tiles.stride.map { _ in "\(Self.statistics)_\(size.function)" } }
    var functions: [String] { [front] + (measure.map { [$0] } ?? []) + [grid.function] }

    /// - Throws: `FluxVAEError.notADecoder` for a model without tiles, `.smallerThanTile`,
    ///   `.unsupportedSize` for a size that a KL decoder was not made for, and for sides that are
    ///   not multiples of the decoder's scale or that its front does not take.
    init(_ model: TiledModel, size: ImageSize) throws {
      let record = model.record
      guard let tiles = record.tiles else {
        throw FluxVAEError.notADecoder(reason: "this model makes no tiles: use LatentDecoder")
      }
      self.record = record
      self.tiles = tiles
      self.size = size
      let scale = record.contract.scale
      let isTiny = (record.recipe.decoder ?? "tiny") == "tiny"
      guard isTiny || record.sizes.contains(size) else {
        throw FluxVAEError.unsupportedSize(size, supported: record.sizes)
      }
      guard model.takes(size) else {
        let near = model.near(size).filter {
          (try? TileGrid($0, tiles: tiles, scale: scale)) != nil
        }
        throw FluxVAEError.unsupportedSize(size, supported: near.isEmpty ? record.sizes : near)
      }
      grid = try TileGrid(size, tiles: tiles, scale: scale)
    }

    /// The plan for a latent, and the latent as `front` takes it.
    ///
    /// - Throws: as the other one, and `.channels` for a latent of another model.
    static func reading(
      _ latent: Latent, _ model: TiledModel
    ) throws -> (plan: Plan, input: Planes) {
      let (contract, layout) = (model.record.contract, model.record.recipe.layout)
      return try latent.read(in: layout) { map in
        guard map.channels == contract.channels else {
          throw FluxVAEError.channels(expected: contract.channels, found: map.channels)
        }
        let size = ImageSize(
          height: map.height * contract.scale, width: map.width * contract.scale)
        let shape = layout.shape(channels: map.channels, height: map.height, width: map.width)
        let plan = try Plan(model, size: size)
        return (plan, Planes(values: map.values(in: layout), shape: shape))
      }
    }

    /// What `measure` is given: all features, in samples.
    func samples(of features: Planes) -> [Planes] { features.samples(tiles.stride ?? 1) }

    func block(of features: Planes, _ row: TileCut, _ column: TileCut) -> Planes {
      features.block(
        rows: row.start..<row.start + grid.height,
        columns: column.start..<column.start + grid.width)
    }

    var canvas: TileCanvas { TileCanvas(size: size, layout: layout, scale: scale) }

    /// The shape of what the function of tiles gives.
    var tileShape: [Int] {
      layout.shape(channels: 3, height: grid.height * scale, width: grid.width * scale)
    }

    func place(_ made: Planes, _ row: TileCut, _ column: TileCut, on canvas: inout TileCanvas) {
      canvas.place(
        made.values, height: grid.height * scale, width: grid.width * scale, row: row,
        column: column)
    }

    /// - Throws: `FluxVAEError.nonFinite`.
    func image(_ canvas: TileCanvas) throws -> DecodedImage {
      try DecodedImage(
        checking: canvas.values, size: size, layout: layout, range: record.contract.range)
    }
  }
}
