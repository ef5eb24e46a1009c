import Foundation
import Testing

@testable import FluxVAE

@Suite struct ErrorTests {
  private static let model = URL(filePath: "/models/decoder.mlpackage")

  /// Every case once, with words that its sentence must hold.
  static let cases: [(FluxVAEError, [String])] = [
    (.modelNotFound(model), ["/models/decoder.mlpackage"]),
    (.loadFailed(model, function: "hw64", reason: "No."), ["hw64", "No.", ".mlmodelc"]),
    (.contractMissing(model), ["decoder.mlpackage", "allowMissing"]),
    (
      .contractMismatch(model, expected: .flux1Sampler, found: .flux2SamplerUnpatchified),
      ["flux1-sampler", "flux2-sampler-unpatchified"]
    ),
    (.recordDamaged(key: "recipe", reason: "gone"), ["recipe", "gone"]),
    (.recordFormat(found: "9", readable: "1"), ["9", "1"]),
    (.notADecoder(reason: "two inputs"), ["two inputs"]),
    (.contradiction(what: "the sizes", record: "A", description: "B"), ["the sizes", "A", "B"]),
    (.elementType(131104), ["131104"]),
    (.strides([70, -1], shape: [2, 3]), ["[70, -1]", "[2, 3]"]),
    (.latentCount(count: 97, height: 2, width: 3), ["97", "2 x 3"]),
    (.latentShape([4, 1], layout: .nhwc), ["[4, 1]", "(1, h, w, C)"]),
    (.latentShape([4, 1], layout: nil), ["(1, C, h, w) or (1, h, w, C)"]),
    (
      .latentAmbiguous([1, 2, 64], sizes: [ImageSize(16), ImageSize(32)]),
      ["[1, 2, 64]", "16x16 or 32x32"]
    ),
    (.nonFinite(what: "latent", count: 3, of: 96), ["3 of the 96", "latent"]),
    (.nonFinite(what: "image", count: 3, of: 96), ["3 of the 96", "image", "float32"]),
    (.channels(expected: 32, found: 16), ["32", "16"]),
    (.unsupportedSize(ImageSize(72), supported: [ImageSize(64)]), ["72x72", "64x64"]),
    (.predictionFailed(reason: "The server was killed."), ["was killed"]),
    (.unexpectedOutput(expected: [1, 3], found: nil), ["[1, 3]", "none"]),
    (.unexpectedOutput(expected: [1, 3], found: [1]), ["[1, 3]", "[1]"]),
    (.unknownRange, ["0...1", "-1...1"]),
    (.noImage(ImageSize(64)), ["64x64"]),
  ]

  @Test(arguments: cases)
  func theSentenceCarriesTheValues(error: FluxVAEError, words: [String]) {
    let sentence = (error as any Error).localizedDescription
    #expect(sentence.hasSuffix("."))
    #expect(!sentence.contains("\n"))
    for word in words { #expect(sentence.contains(word)) }
  }
}
