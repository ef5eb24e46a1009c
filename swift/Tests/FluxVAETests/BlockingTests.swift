import Foundation
import Testing

@testable import FluxVAE

/// Nothing may hang, whoever waits on which thread.
@Suite(.enabled(if: DemoModels.isPossible, DemoModels.reason))
struct BlockingTests {
  private static let cores = ProcessInfo.processInfo.activeProcessorCount
  private static let size = ImageSize(height: 256, width: 240)

  /// Runs `body`, and ends the process when that takes too long: a test that blocks all threads of
  /// the tasks could not end otherwise, not even by a time limit.
  private func withDeadline(_ seconds: Int, _ body: () async throws -> Void) async throws {
    let watch = DispatchSemaphore(value: 0)
    Thread.detachNewThread {
      if watch.wait(timeout: .now() + .seconds(seconds)) == .timedOut {
        fatalError("a decode and others that wait for it hang: \(seconds) s have passed")
      }
    }
    defer { watch.signal() }
    try await body()
  }

  /// A decode that has begun: its first function is being loaded.
  private func begunDecode(
    _ model: DemoModels.Case
  ) async throws -> (tiles: TiledDecoder, latent: Latent, image: Task<DecodedImage, any Error>) {
    let (begun, begin) = AsyncStream.makeStream(of: Void.self)
    let file = ModelFile(url: model.url, computeUnits: .all) { url, units, function in
      begin.finish()
      return try await ModelFile.loaded(url, units, function)
    }
    let tiles = TiledDecoder(ModelStore(file, for: model.latentSpace, .init()))
    let latent = try model.latent(model.sizes[1])
    let image = Task { try await tiles.decode(latent) }
    for await _ in begun {}
    return (tiles, latent, image)
  }

  @Test func reportsAreGivenWhileADecodeRuns() async throws {
    let model = try DemoModels.model("tiles")
    try await withDeadline(120) {
      let (tiles, _, image) = try await begunDecode(model)
      let reports = try await withThrowingTaskGroup(of: Int.self) { tasks in
        for _ in 0..<4 * Self.cores {
          tasks.addTask { try await tiles.report(for: Self.size).tiles }
        }
        return try await tasks.reduce(into: []) { $0.append($1) }
      }
      #expect(reports == Array(repeating: 2, count: 4 * Self.cores))
      #expect(try await image.value.values == model.floats(model.sizes[1].image))
    }
  }

  /// Synchronous code between a task and a blocking call: the compiler cannot warn of it.
  private static func indirectly(_ tiles: TiledDecoder) throws -> Int {
    try tiles.loadBlocking(for: size)
    return try tiles.reportBlocking(for: size).tiles
  }

  @Test func blockingOnEveryThreadOfTheTasksEnds() async throws {
    let model = try DemoModels.model("tiles")
    try await withDeadline(120) {
      let (tiles, latent, image) = try await begunDecode(model)
      let next = Task { try await tiles.decode(latent) }
      let reports = try await withThrowingTaskGroup(of: Int.self) { tasks in
        for _ in 0..<4 * Self.cores { tasks.addTask { try Self.indirectly(tiles) } }
        return try await tasks.reduce(into: []) { $0.append($1) }
      }
      #expect(reports == Array(repeating: 2, count: 4 * Self.cores))
      #expect(try await image.value == next.value)
    }
  }

  @Test func theBlockingFormsGiveTheSame() throws {
    let model = try DemoModels.model("fixed")
    let decoder = model.decoder()
    let size = model.sizes[0]
    try decoder.prewarmBlocking()
    #expect(!decoder.isLoaded)
    try decoder.loadBlocking()
    #expect(decoder.isLoaded)
    #expect(try decoder.describeBlocking().sizes == [ImageSize(64)])
    #expect(try decoder.decodeBlocking(model.latent(size)).values == model.floats(size.image))
    #expect(throws: FluxVAEError.self) {
      try model.decoder(for: .flux1Sampler).loadBlocking()
    }
  }
}
