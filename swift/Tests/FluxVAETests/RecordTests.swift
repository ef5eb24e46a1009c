import Foundation
import Testing

@testable import FluxVAE

/// Texts as fluxvae/artifact/save.py writes them; the tests with models read real ones.
enum Written {
  static func metadata(
    recipe: String = recipe(), contract: String = contract(), format: String = "1"
  ) -> [String: String] {
    [
      "com.github.fluxvae.format": format,
      "com.github.fluxvae.recipe": recipe,
      "com.github.fluxvae.latent_contract": contract,
      "com.github.fluxvae.weights_digest": "c0ffee",
      "com.github.fluxvae.networks": #"{"kind": "demo", "name": "demo", "sha256": null}"#,
      "com.github.fluxvae.versions": #"{"fluxvae": "0.1"}"#,
    ]
  }

  static func recipe(
    layout: String = "nchw", shapes: String = "fixed", sizes: String = #"["64"]"#
  ) -> String {
    """
    {"format": "mlprogram", "io_precision": "auto", "layout": "\(layout)", "nhwc_model": false, \
    "output": "tensor", "precision": "float16", "shapes": "\(shapes)", "sizes": \(sizes), \
    "target": null, "variant": "flux2"}
    """
  }

  static func contract(
    space: String = "flux2-sampler-unpatchified", channels: Int = 32, high: String = "1.0"
  ) -> String {
    """
    {"channels": \(channels), "high": \(high), "low": 0.0, "scale": 8, "space": "\(space)", \
    "wants": "FLUX.2's latent."}
    """
  }

  static let tokens = """
    {"channels": 64, "high": 1.0, "low": -1.0, "scale": 16, "space": "flux1-sampler-packed", \
    "tokens": true, "wants": "FLUX.1's tokens."}
    """
}

@Suite struct RecordTests {
  @Test func aRecordIsReadBack() throws {
    let written = Written.recipe(
      layout: "nhwc", shapes: "multifunction", sizes: #"["64", "64x128"]"#)
    let record = try #require(try ArtifactRecord(metadata: Written.metadata(recipe: written)))
    #expect(record.recipe.variant == "flux2")
    #expect(record.recipe.layout == .nhwc)
    #expect(record.sizes == [ImageSize(64), ImageSize(height: 64, width: 128)])
    #expect(record.functions == ["hw64", "h64w128"])
    #expect(record.contract.space == LatentSpace.flux2SamplerUnpatchified.rawValue)
    #expect(record.contract.range == 0...1)
    #expect(record.weightsDigest == "c0ffee")
  }

  @Test func theContractOfPackedLatentsSaysTokens() throws {
    let record = try #require(
      try ArtifactRecord(metadata: Written.metadata(contract: Written.tokens)))
    #expect(record.contract.isTokens)
    #expect((record.contract.channels, record.contract.scale) == (64, 16))
    #expect(record.contract.space == LatentSpace.flux1SamplerPacked.rawValue)
    #expect(record.contract.range == -1...1)
    let map = try #require(try ArtifactRecord(metadata: Written.metadata()))
    #expect(!map.contract.isTokens)
  }

  @Test func othersModelsHaveNone() throws {
    #expect(try ArtifactRecord(metadata: ["com.example.author": "someone"]) == nil)
  }

  @Test func anotherFormatIsRefused() {
    #expect(throws: FluxVAEError.recordFormat(found: "2", readable: "1")) {
      try ArtifactRecord(metadata: Written.metadata(format: "2"))
    }
  }

  @Test(arguments: ["recipe", "latent_contract", "weights_digest"])
  func aMissingPartIsNamed(key: String) {
    var metadata = Written.metadata()
    metadata["com.github.fluxvae.\(key)"] = nil
    #expect(throws: FluxVAEError.recordDamaged(key: key, reason: "it is missing")) {
      try ArtifactRecord(metadata: metadata)
    }
  }

  @Test(arguments: [
    "{", "[]", "{}", Written.contract(channels: 0), Written.contract(high: "-3"),
    Written.contract(high: #""one""#),
  ])
  func aDamagedContractIsNamed(text: String) {
    #expect { try ArtifactRecord(metadata: Written.metadata(contract: text)) } throws: {
      guard case .recordDamaged("latent_contract", _)? = $0 as? FluxVAEError else { return false }
      return true
    }
  }

  @Test(arguments: ["[]", #"["64x"]"#, #"["64", "big"]"#])
  func damagedSizesAreNamed(sizes: String) {
    #expect {
      try ArtifactRecord(metadata: Written.metadata(recipe: Written.recipe(sizes: sizes)))
    } throws: {
      guard case .recordDamaged("recipe", _)? = $0 as? FluxVAEError else { return false }
      return true
    }
  }
}

/// A damaged record says which field, and what it should be.
@Suite struct RecordRangeTests {
  private func refusal(of key: String, _ text: String) -> String? {
    var metadata = Written.metadata()
    metadata["com.github.fluxvae.\(key)"] = text
    let error = #expect(throws: FluxVAEError.self) { try ArtifactRecord(metadata: metadata) }
    guard case .recordDamaged(key, let reason)? = error else { return nil }
    return reason
  }

  @Test(arguments: [
    ("\"channels\": 32", "\"channels\": 1e30", "channels", "an integer from -9223372036854775808"),
    ("\"channels\": 32", "\"channels\": 99999999999999999999", "channels", "9223372036854775807"),
    ("\"channels\": 32", "\"channels\": 4000000000", "channels is 4000000000", "1 to 999999"),
    ("\"scale\": 8", "\"scale\": 0", "scale is 0", "1 to 1024"),
    ("\"scale\": 8", "\"scale\": 1.5", "scale", "an integer"),
    ("\"high\": 1.0", "\"high\": 1e400", "high", "3.4028235e+38"),
    ("\"high\": 1.0", "\"high\": 1e39", "high", "a number from -3.4"),
    ("\"high\": 1.0", "\"high\": -1", "high -1.0", "low below high"),
    ("\"scale\": 8, ", "", "scale is missing", "scale"),
    ("\"scale\": 8", "\"scale\": \"8\"", "scale", "the type Int"),
    ("{", "", "it is not JSON", "JSON"),
  ])
  func numbersOfTheContract(text: String, instead: String, field: String, range: String) throws {
    let contract = Written.contract()
    try #require(contract.contains(text))
    let reason = try #require(
      refusal(of: "latent_contract", contract.replacingOccurrences(of: text, with: instead)))
    #expect(reason.contains(field) && reason.contains(range), "\(reason)")
  }

  @Test(arguments: [
    (#"{"shapes": {"tile": [29, 1e30]}, "halo": 9}"#, "shapes.tile", "an integer"),
    (#"{"shapes": {"tile": [29, 0]}, "halo": 9}"#, "shapes.tile is 0", "1 to 999999"),
    (#"{"shapes": {"tile": [29]}, "halo": 9}"#, "shapes.tile is [29]", "rows and columns"),
    (#"{"shapes": {"tile": [29, 29]}, "halo": 4611686018427387904}"#, "halo", "0 to 999999"),
    (#"{"shapes": {"tile": [29, 29]}, "halo": 9, "stride": 0}"#, "stride is 0", "1 to 1024"),
    (#"{"shapes": {"tile": [29, 29]}, "halo": 9, "stride": 1e30}"#, "stride", "an integer"),
  ])
  func numbersOfTiles(text: String, field: String, range: String) throws {
    let reason = try #require(refusal(of: "tiles", text))
    #expect(reason.contains(field) && reason.contains(range), "\(reason)")
  }

  @Test func sides() throws {
    let reason = try #require(
      refusal(of: "recipe", Written.recipe(sizes: #"["64", "4611686018427387904"]"#)))
    #expect(reason.contains("sizes") && reason.contains("1 to 999999"), "\(reason)")
  }
}

@Suite struct ContractCheckTests {
  private static let model = URL(filePath: "/models/decoder.mlmodelc")
  private static let mine = LatentSpace.flux2SamplerUnpatchified

  private func contract(_ space: LatentSpace) -> LatentContract {
    LatentContract(
      space: space.rawValue, wants: "", channels: 32, scale: 8, low: 0, high: 1)
  }

  private func judge(_ check: ContractCheck, _ contract: LatentContract?) throws {
    try check.judge(contract, for: Self.mine, model: Self.model)
  }

  @Test(arguments: [ContractCheck.required, .allowMissing, .off])
  func theRightContractPasses(check: ContractCheck) throws {
    try judge(check, contract(Self.mine))
  }

  @Test(arguments: [ContractCheck.required, .allowMissing])
  func aWrongContractIsRefusedWithBothSpaces(check: ContractCheck) {
    let mismatch = FluxVAEError.contractMismatch(
      Self.model, expected: Self.mine, found: .flux1Sampler)
    #expect(throws: mismatch) { try judge(check, contract(.flux1Sampler)) }
  }

  @Test func aMissingContractIsRefusedUnlessAllowed() throws {
    #expect(throws: FluxVAEError.contractMissing(Self.model)) { try judge(.required, nil) }
    try judge(.allowMissing, nil)
  }

  @Test func offComparesNothing() throws {
    try judge(.off, nil)
    try judge(.off, contract(.flux1Sampler))
  }
}
