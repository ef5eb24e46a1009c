import Foundation
import Testing

@testable import HarnessCore

@Suite("Bundle against model")
struct AgreementTests {
  static let foreigners: [([String: String], BundleError)] = [
    (Interfaces.metadata(layout: "nhwc"), BundleError.layout(bundle: .nchw, model: .nhwc)),
    (Interfaces.metadata(variant: "flux1"), .variant(bundle: "flux2", model: "flux1")),
    (Interfaces.metadata(space: "else"), .latentSpace(bundle: "flux2-space", model: "else")),
    (
      Interfaces.metadata(digest: "cd"),
      .weights(bundle: BundleFolder.weights, model: "cd")
    ),
  ]

  let bundle: IOBundle

  init() throws { bundle = try BundleFolder().read() }

  @Test(
    "the model's precision chooses the limit",
    arguments: [
      ("float16", Limit(metric: .psnrDb, bound: 60)),
      ("float32", Limit(metric: .maxAbs, bound: 2e-5)),
    ])
  func limits(precision: String, limit: Limit) throws {
    let model = Interfaces.decoder(metadata: Interfaces.metadata(precision: precision))
    let agreement = try bundle.agreement(with: model)
    #expect(agreement.limit == limit)
    #expect(agreement.precision.rawValue == precision)
    #expect(agreement.notes == [])
  }

  @Test(
    "PSNR is of the range that the model's contract states",
    arguments: [("", 1.0), (", \"low\": -1.0, \"high\": 1.0", 2), (", \"low\": 0, \"high\": 1", 1)])
  func range(entries: String, peak: Double) throws {
    let model = Interfaces.decoder(metadata: Interfaces.metadata(range: entries))
    #expect(try bundle.agreement(with: model).peak == peak)
  }

  @Test("whatever was made for another model is refused", arguments: foreigners)
  func foreign(metadata: [String: String], fault: BundleError) {
    #expect(throws: fault) {
      try bundle.agreement(with: Interfaces.decoder(metadata: metadata))
    }
  }

  @Test("another decoder is named as such, not by the shape that follows from it")
  func origin() {
    let model = Interfaces.decoder(
      metadata: Interfaces.metadata(variant: "flux1"),
      latent: Interfaces.feature("latent", [1, 16, 2, 3]))
    #expect(throws: BundleError.variant(bundle: "flux2", model: "flux1")) {
      try bundle.agreement(with: model)
    }
  }

  @Test("shape and name have to be declared")
  func shapes() {
    let wrong = Interfaces.feature("image", [1, 16, 24, 3])
    #expect(
      throws: BundleError.shape(
        name: "image", found: [1, 3, 16, 24], declared: "[1, 16, 24, 3]")
    ) { try bundle.agreement(with: Interfaces.decoder(image: wrong)) }
    let other = Interfaces.feature("z", [1, 4, 2, 3])
    #expect(throws: BundleError.feature(name: "latent", role: "input", declared: ["z"])) {
      try bundle.agreement(with: Interfaces.decoder(latent: other))
    }
  }

  @Test("an image output is refused in words")
  func image() throws {
    let image = Interfaces.feature("image", [], kind: .image, dtype: nil)
    let error = try #require(throws: ModelFault.self) {
      try bundle.agreement(with: Interfaces.decoder(image: image))
    }
    #expect(error == .image(feature: "image"))
    #expect(error.localizedDescription.contains("--output tensor"))
  }

  @Test("flexible outputs without a shape are taken")
  func flexible() throws {
    let latent = Interfaces.feature(
      "latent", [1, 4, 8, 8], enumerated: [[1, 4, 8, 8], [1, 4, 2, 3]])
    let image = Interfaces.feature("image", [])
    let model = Interfaces.decoder(latent: latent, image: image)
    #expect(try bundle.agreement(with: model).notes == [])
  }

  @Test("a model without our metadata is judged, and the notes say what was not checked")
  func noMetadata() throws {
    let agreement = try bundle.agreement(with: Interfaces.decoder(metadata: [:]))
    #expect(agreement.precision == .float16)
    #expect(agreement.notes.count == 2)
    #expect(agreement.notes[0].contains("not checked"))
  }

  @Test(
    "an input beyond float16 is noted for a model that takes or computes in float16",
    arguments: [
      ("float16", ScalarType.float16, Float(1e30), true), ("float16", .float32, -65520, true),
      ("float32", .float16, 65520, true), ("float32", .float32, 1e30, false),
      ("float16", .float16, 65519, false),  // which rounds to 65504
    ])
  func overflow(precision: String, dtype: ScalarType, value: Float, noted: Bool) throws {
    let folder = try BundleFolder()
    let tensor = try Tensor(
      [1, value] + Array(repeating: 2, count: 22), shape: [1, 4, 2, 3], dtype: .float32)
    try folder.write(tensor.bytes, to: "input.bin")
    folder.change("input", "sha256", to: SHA256.hexDigest(tensor.bytes))
    let model = Interfaces.decoder(
      metadata: Interfaces.metadata(precision: precision),
      latent: Interfaces.feature("latent", [1, 4, 2, 3], dtype: dtype))
    let notes = try folder.read().agreement(with: model).notes
    #expect(notes.count == (noted ? 1 : 0))
    let words = String(format: "holds %g, and float16's largest value is 65504", Double(value))
    #expect(notes.allSatisfy { $0.contains(words) })
  }

  @Test("damaged metadata is an error, not a foreign model")
  func damaged() {
    var metadata = Interfaces.metadata()
    metadata["com.github.fluxvae.recipe"] = "{"
    #expect(throws: ModelFault.record("its entry recipe cannot be read")) {
      try bundle.agreement(with: Interfaces.decoder(metadata: metadata))
    }
    metadata["com.github.fluxvae.format"] = "9"
    #expect(throws: ModelFault.self) {
      try bundle.agreement(with: Interfaces.decoder(metadata: metadata))
    }
  }
}
