import CoreML
import Testing

@testable import FluxVAE

@Suite struct InterfaceTests {
  private func interface(
    latent: [[Int]], image: [[Int]], recipe: String? = nil
  ) throws -> DecoderInterface {
    try DecoderInterface(
      input: TensorFeature(name: "latent", shapes: latent),
      output: TensorFeature(name: "image", shapes: image),
      record: recipe.flatMap { try ArtifactRecord(metadata: Written.metadata(recipe: $0)) })
  }

  @Test func aFixedModelHasOneSize() throws {
    let found = try interface(
      latent: [[1, 32, 8, 8]], image: [[1, 3, 64, 64]], recipe: Written.recipe())
    #expect(found.sizes == [ImageSize(64)])
    #expect(found.layout == .nchw)
    #expect((found.channels, found.scale) == (32, 8))
  }

  @Test func anEnumeratedModelListsItsSizes() throws {
    let recipe = Written.recipe(
      layout: "nhwc", shapes: "enumerated", sizes: #"["64x128", "64"]"#)
    let found = try interface(
      latent: [[1, 8, 16, 32], [1, 8, 8, 32]], image: [], recipe: recipe)
    #expect(found.allSizes == [ImageSize(height: 64, width: 128), ImageSize(64)])
    #expect(try found.otherFunction(for: ImageSize(64)) == nil)
  }

  @Test func aFunctionKnowsTheOthers() throws {
    let recipe = Written.recipe(shapes: "multifunction", sizes: #"["64", "64x128"]"#)
    let found = try interface(
      latent: [[1, 32, 8, 8]], image: [[1, 3, 64, 64]], recipe: recipe)
    #expect(found.sizes == [ImageSize(64)])
    #expect(found.allSizes == [ImageSize(64), ImageSize(height: 64, width: 128)])
    #expect(try found.otherFunction(for: ImageSize(height: 64, width: 128)) == "h64w128")
    #expect(throws: FluxVAEError.unsupportedSize(ImageSize(72), supported: found.allSizes)) {
      try found.otherFunction(for: ImageSize(72))
    }
  }

  /// Four by eight places of an image of 64 x 128.
  private func tokens(places: Int = 32, image: [[Int]], sizes: String) throws -> DecoderInterface {
    try DecoderInterface(
      input: TensorFeature(name: "latent", shapes: [[1, places, 64]]),
      output: TensorFeature(name: "image", shapes: image),
      record: ArtifactRecord(
        metadata: Written.metadata(
          recipe: Written.recipe(sizes: sizes), contract: Written.tokens)))
  }

  @Test func tokensGetTheirRowsFromTheImageOrTheRecord() throws {
    for image in [[[1, 3, 64, 128]], []] {
      let found = try tokens(image: image, sizes: #"["64x128"]"#)
      #expect(found.tokens)
      #expect(found.sizes == [ImageSize(height: 64, width: 128)])
      #expect((found.channels, found.scale) == (64, 16))
      let latent = try Latent([Float](repeating: 0, count: 2048), height: 4, width: 8, layout: .nhwc)
      let (map, size) = try found.read(latent)
      #expect(size == ImageSize(height: 64, width: 128))
      #expect(found.inputShape(map) == [1, 32, 64])
      #expect(found.inputOrder == .nhwc)
    }
  }

  @Test func tokensThatFitNoSizeAreAContradiction() {
    #expect {
      try tokens(places: 30, image: [], sizes: #"["64x128"]"#)
    } throws: {
      guard case .contradiction? = $0 as? FluxVAEError else { return false }
      return true
    }
  }

  @Test func aForeignModelTellsItsLayoutByTheImage() throws {
    #expect(try interface(latent: [[1, 16, 8, 8]], image: [[1, 3, 64, 64]]).layout == .nchw)
    #expect(try interface(latent: [[1, 8, 8, 16]], image: [[1, 64, 64, 3]]).layout == .nhwc)
    #expect(try interface(latent: [[1, 16, 8, 8]], image: [[1, 3, 32, 32]]).scale == 4)
  }

  @Test(
    arguments: [
      ([[1, 16, 8, 8]], []),  // no image shape: no layout
      ([[1, 16, 8, 8]], [[1, 3, 64, 3]]),  // both layouts fit
      ([[1, 16, 8, 8]], [[1, 4, 64, 64]]),
      ([[16, 8, 8]], [[1, 3, 64, 64]]),
      ([], [[1, 3, 64, 64]]),
      ([[1, 16, 8, 8]], [[1, 3, 64, 60]]),  // not square pixels
      ([[1, 16, 80, 8]], [[1, 3, 64, 64]]),  // a latent larger than its image
    ] as [([[Int]], [[Int]])])
  func whatIsNoDecoderIsRefused(latent: [[Int]], image: [[Int]]) {
    #expect {
      try interface(latent: latent, image: image)
    } throws: {
      guard case .notADecoder? = $0 as? FluxVAEError else { return false }
      return true
    }
  }

  @Test(
    arguments: [
      ("the latent", [[1, 16, 8, 8]], [[1, 3, 64, 64]], Written.recipe()),
      ("the latent", [[1, 8, 8, 32]], [[1, 64, 64, 3]], Written.recipe()),
      ("the image", [[1, 32, 8, 8]], [[1, 3, 128, 128]], Written.recipe()),
      ("the sizes", [[1, 32, 16, 16]], [[1, 3, 128, 128]], Written.recipe()),
      (
        "the sizes", [[1, 32, 8, 8]], [],
        Written.recipe(shapes: "enumerated", sizes: #"["64", "128"]"#)
      ),
    ] as [(String, [[Int]], [[Int]], String)])
  func aRecordThatContradictsIsRefused(
    what: String, latent: [[Int]], image: [[Int]], recipe: String
  ) {
    #expect {
      try interface(latent: latent, image: image, recipe: recipe)
    } throws: {
      guard case .contradiction(what, _, _)? = $0 as? FluxVAEError else { return false }
      return true
    }
  }

  @Test func channelsAreCounted() throws {
    let found = try interface(latent: [[1, 32, 8, 8]], image: [[1, 3, 64, 64]])
    let latent = try Latent([Float](repeating: 0, count: 16 * 64), height: 8, width: 8)
    #expect(throws: FluxVAEError.channels(expected: 32, found: 16)) { try found.read(latent) }
  }
}

/// The decoder's layout decides about a latent that does not say its own.
@Suite struct ReadingTests {
  private func latent(_ shape: [Int], _ layout: TensorLayout? = nil) throws -> Latent {
    let count = shape.reduce(1, *)
    return try Latent((0..<count).map(Float.init), shape: shape, layout: layout)
  }

  private func decoder(_ layout: TensorLayout, _ size: ImageSize) throws -> DecoderInterface {
    let (height, width) = (size.height / 8, size.width / 8)
    return try DecoderInterface(
      input: TensorFeature(
        name: "latent",
        shapes: [layout.shape(channels: 32, height: height, width: width)]),
      output: TensorFeature(
        name: "image",
        shapes: [layout.shape(channels: 3, height: size.height, width: size.width)]),
      record: nil)
  }

  @Test(arguments: TensorLayout.allCases)
  func aShapeThatFitsBothIsReadInTheDecodersOrder(layout: TensorLayout) throws {
    let found = try decoder(layout, ImageSize(256)).read(latent([1, 32, 32, 32]))
    #expect(found.map.layout == layout && found.size == ImageSize(256))
    #expect(found.map.values(in: layout).prefix(2) == [0, 1])
  }

  @Test func aSideAsLongAsTheChannelsDoesNotMisleadEither() throws {
    let size = ImageSize(height: 256, width: 384)
    let own = try decoder(.nhwc, size).read(latent([1, 32, 48, 32]))
    #expect(own.map.layout == .nhwc && own.size == size)
    let other = try decoder(.nhwc, ImageSize(height: 384, width: 256)).read(latent([32, 48, 32]))
    #expect(other.map.layout == .nchw && other.size == ImageSize(height: 384, width: 256))
  }

  @Test func theOtherOrderIsTakenWhereItAloneFits() throws {
    let found = try decoder(.nhwc, ImageSize(64)).read(latent([1, 32, 8, 8]))
    #expect(found.map.layout == .nchw && found.size == ImageSize(64))
  }

  @Test func anOrderThatIsSaidIsNotChanged() throws {
    #expect(throws: FluxVAEError.channels(expected: 32, found: 8)) {
      try decoder(.nchw, ImageSize(64)).read(latent([1, 32, 8, 8], .nhwc))
    }
    let size = ImageSize(height: 256, width: 384)
    let other = ImageSize(height: 384, width: 256)
    #expect(throws: FluxVAEError.unsupportedSize(other, supported: [size])) {
      try decoder(.nhwc, size).read(latent([1, 32, 48, 32], .nchw))
    }
  }

  @Test func anotherModelsChannelsAreRefused() throws {
    #expect(throws: FluxVAEError.channels(expected: 32, found: 16)) {
      try decoder(.nchw, ImageSize(height: 128, width: 256)).read(latent([1, 16, 16, 32], .nchw))
    }
    #expect(throws: FluxVAEError.channels(expected: 32, found: 16)) {
      try decoder(.nchw, ImageSize(64)).read(latent([1, 16, 8, 8]))
    }
  }

  @Test(arguments: [[1, 1, 32, 8, 8], [1, 32, 1, 8, 8], [32, 1, 8, 8], [32, 8, 8]])
  func axesOfLengthOneAreLeftOut(shape: [Int]) throws {
    #expect(try decoder(.nchw, ImageSize(64)).read(latent(shape)).size == ImageSize(64))
  }

  private func tokens(_ sizes: String) throws -> DecoderInterface {
    try DecoderInterface(
      input: TensorFeature(name: "latent", shapes: [[1, 32, 64]]),
      output: TensorFeature(name: "image", shapes: [[1, 3, 64, 128]]),
      record: ArtifactRecord(
        metadata: Written.metadata(
          recipe: Written.recipe(shapes: "multifunction", sizes: sizes), contract: Written.tokens)))
  }

  @Test(arguments: [[1, 32, 64], [32, 64]])
  func tokensGetTheirRowsFromTheOneSizeThatFits(shape: [Int]) throws {
    let found = try tokens(#"["64x128", "128"]"#).read(latent(shape))
    #expect((found.map.height, found.map.width, found.map.channels) == (4, 8, 64))
  }

  @Test func tokensThatFitSeveralSizesAreRefused() throws {
    let sizes = [ImageSize(height: 64, width: 128), ImageSize(height: 128, width: 64)]
    #expect(throws: FluxVAEError.latentAmbiguous([1, 32, 64], sizes: sizes)) {
      try tokens(#"["64x128", "128x64"]"#).read(latent([1, 32, 64]))
    }
  }
}
