import Foundation
import Testing

@testable import FluxVAE

/// Images in tiles. What they must be is put together by Python, see `DemoModels`.
@Suite(.enabled(if: DemoModels.isPossible, DemoModels.reason))
struct TiledDecoderTests {
  private func decoder(_ model: DemoModels.Case) -> TiledDecoder {
    TiledDecoder(modelAt: model.url, for: model.latentSpace)
  }

  @Test func tilesOfATinyDecoderAreThoseOfPythonBitByBit() async throws {
    let model = try DemoModels.model("tiles")
    let tiles = decoder(model)
    for size in model.sizes {
      let image = try await tiles.decode(model.latent(size))
      #expect(image.size == ImageSize(height: size.height, width: size.width))
      #expect(image.range == 0...1)
      #expect(try image.values == model.floats(size.image))
    }
  }

  /// Statistics are pooled in double precision on both sides, in another order of sums.
  @Test func tilesOfAKLDecoderAreThoseOfPython() async throws {
    let model = try DemoModels.model("kl-tiles")
    let size = model.sizes[0]
    let image = try await decoder(model).decode(model.latent(size))
    let expected = try model.floats(size.image)
    let found = image.values(in: .nchw)
    #expect(image.layout == .nhwc && found.count == expected.count)
    #expect(zip(found, expected).allSatisfy { abs($0 - $1) < 1e-5 })
  }

  @Test func aCancelledTaskMakesNone() async throws {
    let model = try DemoModels.model("tiles")
    let tiles = decoder(model)
    let latent = try model.latent(model.sizes[1])
    let task = Task {
      withUnsafeCurrentTask { $0?.cancel() }
      return try await tiles.decode(latent)
    }
    await #expect(throws: CancellationError.self) { try await task.value }
  }

  @Test func costsAreReportedWithoutLoading() async throws {
    let model = try DemoModels.model("tiles")
    let report = try await decoder(model).report(for: ImageSize(height: 240, width: 304))
    #expect(report.tiles == 4 && report.tileSize == ImageSize(232) && report.promise == .exact)
    let kl = try DemoModels.model("kl-tiles")
    let frozen = try await decoder(kl).report(for: ImageSize(height: 192, width: 224))
    #expect(frozen.tiles == 4 && frozen.promise == .stridedStatistics)
    let described = try await decoder(kl).describe()
    #expect(described.sizes == [ImageSize(height: 192, width: 224)])
    #expect((described.channels, described.scale, described.layout) == (16, 8, .nhwc))
  }

  @Test func whatCannotBeMadeIsSaid() async throws {
    let model = try DemoModels.model("tiles")
    let kl = try DemoModels.model("kl-tiles")
    let small = ImageSize(height: 64, width: 232)
    await #expect(throws: FluxVAEError.smallerThanTile(small, tile: ImageSize(232))) {
      try await decoder(model).report(for: small)
    }
    for (size, near) in [
      (ImageSize(height: 523, width: 530), [(520, 528), (528, 536)]),
      (ImageSize(height: 300, width: 301), [(296, 296), (304, 304)]),
      (ImageSize(height: 233, width: 240), [(232, 240), (240, 240)]),
    ] {
      let supported = near.map { ImageSize(height: $0.0, width: $0.1) }
      await #expect(throws: FluxVAEError.unsupportedSize(size, supported: supported)) {
        try await decoder(model).report(for: size)
      }
    }
    // The front takes latents of 8 to 512 rows and columns.
    let tall = ImageSize(height: 4104, width: 240)
    let tallest = FluxVAEError.unsupportedSize(
      tall, supported: [ImageSize(height: 4096, width: 240)])
    await #expect(throws: tallest) { try await decoder(model).report(for: tall) }
    let map = try Latent([Float](repeating: 0, count: 32 * 513 * 30), height: 513, width: 30)
    await #expect(throws: tallest) { try await decoder(model).decode(map) }
    #expect(try await decoder(model).report(for: ImageSize(4096)).tiles > 300)
    for side in [Int.max, Int.max - 7, 8_000_000, 0, -8, .min] {
      await #expect(throws: FluxVAEError.self) {
        try await decoder(model).report(for: ImageSize(side))
      }
    }
    let other = ImageSize(256)
    let made = [ImageSize(height: 192, width: 224)]
    await #expect(throws: FluxVAEError.unsupportedSize(other, supported: made)) {
      try await decoder(kl).report(for: other)
    }
    let latent = try Latent([Float](repeating: 0, count: 16 * 29 * 29), height: 29, width: 29)
    await #expect(throws: FluxVAEError.channels(expected: 32, found: 16)) {
      try await decoder(model).decode(latent)
    }
    await #expect(throws: FluxVAEError.self) {
      try await TiledDecoder(modelAt: model.url, for: .flux1Sampler).decode(latent)
    }
  }

  @Test func eachDecoderKnowsItsOwnModels() async throws {
    let tiles = try DemoModels.model("tiles")
    let whole = try DemoModels.model("fixed")
    let other = FluxVAEError.notADecoder(reason: "this model makes tiles: use TiledDecoder")
    await #expect(throws: other) {
      try await tiles.decoder().load()
    }
    await #expect(throws: FluxVAEError.self) {
      try await TiledDecoder(modelAt: whole.url, for: whole.latentSpace).report(for: ImageSize(64))
    }
  }
}
