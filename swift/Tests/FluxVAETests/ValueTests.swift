import CoreML
import Foundation
import Testing

@testable import FluxVAE

@Suite struct LatentTests {
  @Test func countsGiveTheChannels() throws {
    let latent = try Latent([Float](repeating: 0, count: 96), height: 2, width: 3)
    #expect(latent.channels == 16)
  }

  @Test(arguments: [(0, 2, 3), (97, 2, 3), (96, 0, 3), (96, -2, -3), (96, .max, 2)])
  func countsThatDoNotFitAreRefused(count: Int, height: Int, width: Int) {
    #expect(throws: FluxVAEError.latentCount(count: count, height: height, width: width)) {
      try Latent([Float](repeating: 0, count: count), height: height, width: width)
    }
  }

  @Test func arraysAndShapedArraysSayTheSame() throws {
    let shaped = MLShapedArray<Float>(scalars: (0..<24).map(Float.init), shape: [1, 2, 3, 4])
    let latent = try Latent(shaped, layout: .nchw)
    #expect(latent == (try Latent(MLMultiArray(shaped), layout: .nchw)))
    #expect(latent.values == (0..<24).map(Float.init))
    #expect((latent.channels, latent.height, latent.width) == (2, 3, 4))
    #expect(try Latent(shaped) == Latent(MLMultiArray(shaped)))
    #expect(try Latent(shaped).channels == nil)
  }

  @Test func channelsComeLastInNHWC() throws {
    let shaped = MLShapedArray<Double>(scalars: (0..<24).map(Double.init), shape: [3, 4, 2])
    let latent = try Latent(shaped, layout: .nhwc)
    #expect((latent.channels, latent.height, latent.width) == (2, 3, 4))
    let planes = try latent.read(in: .nchw) { $0.values(in: .nchw) }
    #expect(planes.prefix(3) == [0, 2, 4])
  }

  @Test(arguments: [[2, 2, 3, 4], [12], [2, 1, 2, 3, 4]])
  func otherShapesAreRefused(shape: [Int]) throws {
    let array = try MLMultiArray(shape: shape.map { NSNumber(value: $0) }, dataType: .float32)
    #expect(throws: FluxVAEError.latentShape(shape, layout: nil)) { try Latent(array) }
  }
}

@Suite struct ShapedArrayTests {
  @Test func everyElementTypeIsRead() throws {
    let values = (0..<24).map { Float($0) / 4 - 2 }
    let shape = [1, 2, 3, 4]
    let expected = try Latent(values, shape: shape, layout: nil)
    #expect(try Latent(MLShapedArray<Float>(scalars: values, shape: shape)) == expected)
    let doubles = MLShapedArray<Double>(scalars: values.map(Double.init), shape: shape)
    #expect(try Latent(doubles) == expected)
    #if !((os(macOS) || targetEnvironment(macCatalyst)) && arch(x86_64))
      let halves = MLShapedArray<Float16>(scalars: values.map { Float16($0) }, shape: shape)
      #expect(try Latent(halves) == expected)
    #endif
  }

  /// A latent of a megapixel. Element by element it took more than a hundred times as long.
  @Test func aShapedArrayIsCopiedInBulk() throws {
    let shaped = MLShapedArray<Float>(repeating: 0.5, shape: [1, 32, 128, 128])
    let array = MLMultiArray(shaped)
    let clock = ContinuousClock()
    func least(_ body: () throws -> Latent) throws -> Duration {
      let times = try (0..<5).map { _ in try clock.measure { _ = try body() } }
      return try #require(times.min())
    }
    let (one, other) = (try least { try Latent(shaped) }, try least { try Latent(array) })
    #expect(one < other * 10, "\(one), and \(other) from a multi-array")
  }
}

@Suite struct TensorLayoutTests {
  @Test func planesBecomePixels() {
    let planes: [Float] = [0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23]
    let pixels: [Float] = [0, 10, 20, 1, 11, 21, 2, 12, 22, 3, 13, 23]
    #expect(TensorLayout.nchw.reorder(planes, channels: 3, to: .nhwc) == pixels)
    #expect(TensorLayout.nhwc.reorder(pixels, channels: 3, to: .nchw) == planes)
    #expect(TensorLayout.nhwc.reorder(pixels, channels: 3, to: .nhwc) == pixels)
  }
}

@Suite struct ImageSizeTests {
  @Test(arguments: [("768", 768, 768), ("768x1344", 768, 1344)])
  func recipesSpellSizes(text: String, height: Int, width: Int) {
    #expect(ImageSize(recipe: text) == ImageSize(height: height, width: width))
  }

  @Test(arguments: ["", "x", "768x", "x768", "1x2x3", "-8", "0", "a", "768 x 8"])
  func otherTextIsNoSize(text: String) {
    #expect(ImageSize(recipe: text) == nil)
  }

  /// Names as `Size.function` of fluxvae/recipes.py makes them.
  @Test func functionsAreNamedAfterSizes() {
    #expect(ImageSize(768).function == "hw768")
    #expect(ImageSize(height: 768, width: 1344).function == "h768w1344")
  }
}

@Suite struct DecodedImageTests {
  private func image(
    _ values: [Float], layout: TensorLayout, range: ClosedRange<Float>?
  ) -> DecodedImage {
    let size = ImageSize(height: 1, width: values.count / 3)
    return DecodedImage(values: values, size: size, layout: layout, range: range)
  }

  /// Levels from numpy: `rint(v.clip(0, 1) * 255)` in float32.
  @Test func pixelsAreClampedAndRounded() throws {
    let values: [Float] = [
      -0.2, 0, 0.1, 0.00196, 0.0019607844, 0.5, 0.49803922, 0.99804, 1.07, 0.3, 0.7, 1,
    ]
    let levels: [UInt8] = [0, 0, 26, 0, 0, 128, 127, 255, 255, 76, 178, 255]
    #expect(try image(values, layout: .nhwc, range: 0...1).rgb8() == levels)
  }

  /// Levels from numpy: `rint((v.clip(-1, 1) + 1) * 127.5)` in float32.
  @Test func theRangeOfFullDecodersIsWider() throws {
    let values: [Float] = [-1.1, -1, -0.5, 0, 0.25, 0.9999, 1, 1.2, .nan]
    let levels: [UInt8] = [0, 0, 64, 128, 159, 255, 255, 255, 0]
    #expect(try image(values, layout: .nhwc, range: -1...1).rgb8() == levels)
  }

  @Test func planesAreInterleaved() throws {
    let picture = image([0, 0.2, 0.4, 0.6, 0.8, 1], layout: .nchw, range: nil)
    #expect(try picture.rgb8(range: 0...1) == [0, 102, 204, 51, 153, 255])
  }

  @Test func infinityIsWhiteAndItsNegativeBlack() throws {
    let picture = image([.infinity, -.infinity, 0], layout: .nhwc, range: 0...1)
    #expect(try picture.rgb8() == [255, 0, 0])
  }

  @Test func anImageThatIsNotFiniteIsRefused() {
    let values: [Float] = [0, .nan, .infinity, 0.5, -.infinity, 1]
    #expect(throws: FluxVAEError.nonFinite(what: "image", count: 3, of: 6)) {
      try DecodedImage(
        checking: values, size: ImageSize(height: 1, width: 2), layout: .nhwc, range: nil)
    }
  }

  @Test func anUnknownRangeIsRefused() {
    #expect(throws: FluxVAEError.unknownRange) {
      try image([0, 0, 0], layout: .nhwc, range: nil).rgb8()
    }
  }
}
