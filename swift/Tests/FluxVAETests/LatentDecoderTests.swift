import CoreML
import Foundation
import Testing

@testable import FluxVAE

/// Whole decodes. The images come from the executor under Python, see `DemoModels`.
@Suite(.enabled(if: DemoModels.isPossible, DemoModels.reason))
struct LatentDecoderTests {
  @Test(arguments: ["fixed", "enumerated", "multifunction"])
  func decodesToTheSameBitsAsPython(name: String) async throws {
    let model = try DemoModels.model(name)
    let decoder = model.decoder()
    for size in model.sizes {
      let image = try await decoder.decode(model.latent(size))
      #expect(image.size == ImageSize(height: size.height, width: size.width))
      #expect(image.layout == model.layout)
      #expect(image.range == 0...1)
      #expect(try image.values(in: .nchw) == model.floats(size.image))
    }
  }

  @Test func anyLayoutOfTheLatentWillDo() async throws {
    let model = try DemoModels.model("fixed")
    let size = model.sizes[0]
    let planes = try model.latent(size)
    let pixels = try Latent(
      planes.read(in: .nchw) { $0.values(in: .nhwc) }, height: size.height / 8,
      width: size.width / 8, layout: .nhwc)
    #expect(try await model.decoder().decode(pixels).values == model.floats(size.image))
  }

  @Test func arraysAreTaken() async throws {
    let model = try DemoModels.model("fixed")
    let size = model.sizes[0]
    let shape = [1, model.channels, size.height / 8, size.width / 8]
    let shaped = MLShapedArray<Float>(scalars: try model.floats(size.latent), shape: shape)
    let decoder = model.decoder()
    let expected = try model.floats(size.image)
    #expect(try await decoder.decode(Latent(shaped)).values == expected)
    #expect(try await decoder.decode(Latent(MLMultiArray(shaped))).values == expected)
  }

  @Test func manyTasksShareOneDecoder() async throws {
    let model = try DemoModels.model("fixed")
    let decoder = model.decoder()
    let latent = try model.latent(model.sizes[0])
    let images = try await withThrowingTaskGroup(of: DecodedImage.self) { tasks in
      for _ in 0..<4 { tasks.addTask { try await decoder.decode(latent) } }
      return try await tasks.reduce(into: []) { $0.append($1) }
    }
    let expected = try model.floats(model.sizes[0].image)
    #expect(images.count == 4)
    #expect(images.allSatisfy { $0.values == expected })
  }

  @Test func aCancelledTaskDecodesNothing() async throws {
    let model = try DemoModels.model("fixed")
    let decoder = model.decoder()
    let latent = try model.latent(model.sizes[0])
    let task = Task {
      withUnsafeCurrentTask { $0?.cancel() }
      return try await decoder.decode(latent)
    }
    await #expect(throws: CancellationError.self) { try await task.value }
    #expect(!decoder.isLoaded)
    #expect(try await decoder.decode(latent).values == model.floats(model.sizes[0].image))
  }

  @Test func nothingIsLoadedUntilAsked() async throws {
    let decoder = try DemoModels.model("fixed").decoder()
    #expect(!decoder.isLoaded)
    try await decoder.prewarm()
    #expect(try await decoder.describe().sizes == [ImageSize(64)])
    #expect(!decoder.isLoaded)
    try await decoder.load()
    #expect(decoder.isLoaded)
    try await decoder.prewarm()
    #expect(decoder.isLoaded)
    decoder.unload()
    #expect(!decoder.isLoaded)
  }

  @Test func sizesAndFunctionsAreListed() async throws {
    let several = try await DemoModels.model("multifunction").decoder().describe()
    #expect(several.sizes == [ImageSize(64), ImageSize(height: 72, width: 64)])
    #expect(several.functions == ["hw64", "h72w64"])
    #expect((several.channels, several.scale, several.layout) == (16, 8, .nchw))
    let enumerated = try await DemoModels.model("enumerated").decoder().describe()
    #expect(enumerated.sizes == [ImageSize(height: 64, width: 72), ImageSize(64)])
    #expect(enumerated.functions.isEmpty)
    #expect(enumerated.layout == .nhwc)
    #expect(enumerated.record?.recipe.variant == "flux2")
    #expect(enumerated.record?.weightsDigest.count == 64)
  }

  @Test func aFunctionCanBeAskedFor() async throws {
    let model = try DemoModels.model("multifunction")
    let decoder = model.decoder(.init(function: "h72w64"))
    for size in model.sizes.reversed() {
      #expect(try await decoder.decode(model.latent(size)).values == model.floats(size.image))
    }
  }
}

/// What a decoder refuses, with the values at fault.
@Suite(.enabled(if: DemoModels.isPossible, DemoModels.reason))
struct RefusalTests {
  @Test func anotherLatentSpace() async throws {
    let model = try DemoModels.model("fixed")
    let decoder = model.decoder(for: .flux2SamplerUnpatchified)
    let mismatch = FluxVAEError.contractMismatch(
      model.url, expected: .flux2SamplerUnpatchified, found: model.latentSpace)
    await #expect(throws: mismatch) { try await decoder.load() }
    await #expect(throws: mismatch) { try await decoder.decode(model.latent(model.sizes[0])) }
    #expect(!decoder.isLoaded)
    let asked = model.decoder(for: .flux2SamplerUnpatchified, .init(contractCheck: .off))
    let image = try await asked.decode(model.latent(model.sizes[0]))
    #expect(try image.values == model.floats(model.sizes[0].image))
  }

  @Test func aModelWithoutAContract() async throws {
    let model = try DemoModels.model("foreign")
    await #expect(throws: FluxVAEError.contractMissing(model.url)) {
      try await model.decoder().load()
    }
    let asked = model.decoder(.init(contractCheck: .allowMissing))
    let image = try await asked.decode(model.latent(model.sizes[0]))
    #expect(try image.values == model.floats(model.sizes[0].image))
    #expect(throws: FluxVAEError.unknownRange) { try image.rgb8() }
  }

  @Test func anImageInPlaceOfATensor() async throws {
    let model = try DemoModels.model("picture")
    await #expect {
      try await model.decoder().load()
    } throws: {
      guard case .notADecoder(let reason)? = $0 as? FluxVAEError else { return false }
      return reason.contains("output image")
    }
  }

  @Test func aLatentOfAnotherShape() async throws {
    let model = try DemoModels.model("multifunction")
    let decoder = model.decoder()
    let supported = try await decoder.describe().sizes
    let large = try Latent([Float](repeating: 0, count: 16 * 100), height: 10, width: 10)
    let refusal = FluxVAEError.unsupportedSize(ImageSize(80), supported: supported)
    await #expect(throws: refusal) { try await decoder.decode(large) }
    let other = try Latent([Float](repeating: 0, count: 32 * 64), height: 8, width: 8)
    await #expect(throws: FluxVAEError.channels(expected: 16, found: 32)) {
      try await decoder.decode(other)
    }
  }

  @Test func anUnknownFunction() async throws {
    let model = try DemoModels.model("multifunction")
    await #expect {
      try await model.decoder(.init(function: "hw1024")).load()
    } throws: {
      guard case .loadFailed(model.url, "hw1024"?, let reason)? = $0 as? FluxVAEError else {
        return false
      }
      return !reason.isEmpty
    }
  }

  @Test func aDamagedModel() async throws {
    let folder = FileManager.default.temporaryDirectory
      .appending(path: "fluxvae-damaged-\(UUID().uuidString).mlmodelc")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    let decoder = LatentDecoder(modelAt: folder, for: .flux1Sampler)
    await #expect {
      try await decoder.load()
    } throws: {
      guard case .loadFailed(folder, nil, let reason)? = $0 as? FluxVAEError else { return false }
      return !reason.isEmpty
    }
  }
}

@Suite struct AbsenceTests {
  private static let url = URL(filePath: "/nowhere/decoder.mlmodelc")
  private static let decoder = LatentDecoder(modelAt: url, for: .flux1Sampler)

  @Test func aMissingModelIsNamed() async {
    await #expect(throws: FluxVAEError.modelNotFound(Self.url)) { try await Self.decoder.load() }
  }
}
