import CoreML
import Foundation
import Synchronization
import Testing

@testable import FluxVAE

/// Which functions are loaded, how often, and what is left of them.
@Suite(.enabled(if: DemoModels.isPossible, DemoModels.reason))
struct LoadingTests {
  /// Loads as a decoder does, and notes it.
  private final class Counter: Sendable {
    private struct Loaded: @unchecked Sendable {  // only asked whether it is still there
      weak var model: MLModel?
    }

    private let names = Mutex<[String?]>([])
    private let models = Mutex<[Loaded]>([])
    private let event = Mutex<(@Sendable () -> Void)?>(nil)

    var functions: [String?] { names.withLock { $0 } }
    /// Models that something still holds.
    var alive: Int { models.withLock { $0.filter { $0.model != nil }.count } }

    /// Calls `body` after the next load.
    func afterLoad(_ body: @escaping @Sendable () -> Void) { event.withLock { $0 = body } }

    func file(_ model: DemoModels.Case) -> ModelFile {
      ModelFile(url: model.url, computeUnits: .all) { url, units, function in
        let model = try await ModelFile.loaded(url, units, function)
        self.names.withLock { $0.append(function) }
        let loaded = Loaded(model: model)
        self.models.withLock { $0.append(loaded) }
        self.event.withLock { (event: inout (@Sendable () -> Void)?) in
          defer { event = nil }
          return event
        }?()
        return model
      }
    }

    func decoder(_ model: DemoModels.Case) -> LatentDecoder {
      LatentDecoder(ModelStore(file(model), for: model.latentSpace, .init()))
    }

    func tiles(_ model: DemoModels.Case) -> TiledDecoder {
      TiledDecoder(ModelStore(file(model), for: model.latentSpace, .init()))
    }
  }

  @Test func aDecodeLoadsTheFunctionForItsSizeAlone() async throws {
    let (model, counter) = (try DemoModels.model("multifunction"), Counter())
    let decoder = counter.decoder(model)
    let size = model.sizes[1]
    _ = try await decoder.describe()
    #expect(counter.functions == [])
    for _ in 0..<2 {
      #expect(try await decoder.decode(model.latent(size)).values == model.floats(size.image))
    }
    #expect(counter.functions == ["h72w64"] && counter.alive == 1)
  }

  @Test func tilesLoadEachFunctionOnce() async throws {
    let (model, counter) = (try DemoModels.model("tiles"), Counter())
    let tiles = counter.tiles(model)
    let size = model.sizes[1]
    _ = try await tiles.report(for: ImageSize(height: size.height, width: size.width))
    _ = try await tiles.describe()
    #expect(counter.functions == [])
    for _ in 0..<2 {
      #expect(try await tiles.decode(model.latent(size)).values == model.floats(size.image))
    }
    #expect(counter.functions == ["front", "tile_h256w240"] && counter.alive == 2)
  }

  @Test func aSizeIsPrewarmedOneFunctionAfterTheOther() async throws {
    let (model, counter) = (try DemoModels.model("kl-tiles"), Counter())
    let tiles = counter.tiles(model)
    let size = ImageSize(height: 192, width: 224)
    let functions = ["front_h192w224", "statistics_h192w224", "tile_h192w224"]
    try await tiles.prewarm(for: size)
    #expect(counter.functions == functions && counter.alive == 0 && !tiles.isLoaded)
    try await tiles.load(for: size)
    #expect(counter.functions == functions + functions && tiles.isLoaded)
    try await tiles.prewarm()
    #expect(counter.functions.count == 6)  // all are there

    let (several, other) = (try DemoModels.model("multifunction"), Counter())
    let decoder = other.decoder(several)
    try await decoder.prewarm(for: ImageSize(height: 72, width: 64))
    #expect(other.functions == ["h72w64"] && other.alive == 0 && !decoder.isLoaded)
  }

  @Test func whatIsReleasedDuringADecodeIsGoneAfterIt() async throws {
    let (model, counter) = (try DemoModels.model("multifunction"), Counter())
    let decoder = counter.decoder(model)
    counter.afterLoad { decoder.unload() }
    let size = model.sizes[0]
    #expect(try await decoder.decode(model.latent(size)).values == model.floats(size.image))
    #expect(!decoder.isLoaded && counter.alive == 0)
    #expect(try await decoder.decode(model.latent(size)).values == model.floats(size.image))
    #expect(decoder.isLoaded && counter.alive == 1)
  }

  @Test func tilesThatAreReleasedDuringADecodeAreGoneAfterIt() async throws {
    let (model, counter) = (try DemoModels.model("tiles"), Counter())
    let tiles = counter.tiles(model)
    counter.afterLoad { tiles.unload() }  // once `front` is there, before `tile` is
    let size = model.sizes[1]
    #expect(try await tiles.decode(model.latent(size)).values == model.floats(size.image))
    #expect(counter.functions.count == 2)
    #expect(!tiles.isLoaded && counter.alive == 0)
  }
}

/// Values that are not finite are refused, and not drawn black.
@Suite(.enabled(if: DemoModels.isPossible, DemoModels.reason))
struct NonFiniteTests {
  @Test(arguments: ["fixed", "tiles"], [Float.nan, .infinity, 1e30])
  func aLatentThatIsNotFiniteIsRefused(name: String, value: Float) async throws {
    let model = try DemoModels.model(name)
    let size = try #require(model.sizes.last)
    var floats = try model.floats(size.latent)
    floats.replaceSubrange(5..<8, with: repeatElement(value, count: 3))
    let latent = try Latent(floats, height: size.height / 8, width: size.width / 8)
    let error = FluxVAEError.nonFinite(what: "latent", count: 3, of: floats.count)
    await #expect(throws: error) {
      _ = name == "fixed"
        ? try await model.decoder().decode(latent)
        : try await TiledDecoder(modelAt: model.url, for: model.latentSpace).decode(latent)
    }
  }
}
