import Foundation
import Testing

@testable import CoreML

@Suite(.enabled(if: Models.isPossible, Models.reason))
struct DescriptionTests {
  @Test func featuresAndMetadataAreThoseOfTheModel() throws {
    let description = try Models.load("fixed16").modelDescription
    let x = try #require(description.inputDescriptionsByName["x"])
    #expect(x.name == "x" && x.type == .multiArray && !x.isOptional)
    #expect(x.multiArrayConstraint?.dataType == .float16)
    #expect(x.multiArrayConstraint?.shape == [1, 2, 3, 5])
    #expect(x.multiArrayConstraint?.shapeConstraint.enumeratedShapes == [[1, 2, 3, 5]])
    #expect(Set(description.outputDescriptionsByName.keys) == ["y"])
    #expect(description.metadata[.author] as? String == "a test")
    #expect(description.metadata[.license] as? String == "MIT")
    #expect(description.metadata[.versionString] as? String == "1.2")
    #expect(description.metadata[.description] as? String == "Twice and one more.")
    let own = description.metadata[.creatorDefinedKey] as? [String: String]
    #expect(own?["com.github.fluxvae.test"] == "värde")
  }

  @Test func enumeratedShapesAreListed() throws {
    let model = try Models.load("enumerated")
    let x = try #require(model.modelDescription.inputDescriptionsByName["x"])
    let shapes = try #require(x.multiArrayConstraint?.shapeConstraint)
    #expect(shapes.type == .enumerated)
    #expect(Set(shapes.enumeratedShapes) == [[1, 2, 3, 5], [1, 2, 4, 6]])
    #expect(x.isAllowedValue(MLFeatureValue(multiArray: counting([1, 2, 4, 6]))))
    #expect(!x.isAllowedValue(MLFeatureValue(multiArray: counting([1, 2, 4, 5]))))
    #expect(!x.isAllowedValue(MLFeatureValue(int64: 1)))
    let output = try model.prediction(from: features(counting([1, 2, 4, 6])))
    #expect(output.featureValue(for: "y")?.multiArrayValue?.shape == [1, 2, 4, 6])
    // Core ML does not know the shape of a flexible output either
    let y = model.modelDescription.outputDescriptionsByName["y"]?.multiArrayConstraint
    #expect(y?.shape == [] && y?.shapeConstraint.type == .unspecified)
  }

  @Test func rangesAreGivenForEachDimension() throws {
    let model = try Models.load("ranged")
    let x = try #require(model.modelDescription.inputDescriptionsByName["x"])
    let shapes = try #require(x.multiArrayConstraint?.shapeConstraint)
    #expect(shapes.type == .range)
    #expect(
      shapes.sizeRangeForDimension.map(\.rangeValue) == [
        NSRange(location: 1, length: 1), NSRange(location: 2, length: 1),
        NSRange(location: 2, length: 7), NSRange(location: 5, length: 1),
      ])
    #expect(x.isAllowedValue(MLFeatureValue(multiArray: counting([1, 2, 8, 5]))))
    #expect(!x.isAllowedValue(MLFeatureValue(multiArray: counting([1, 2, 9, 5]))))
    #expect(!x.isAllowedValue(MLFeatureValue(multiArray: counting([1, 2, 1, 5]))))
  }

  @Test func anImageIsDescribedAndRefusedInWords() throws {
    let model = try Models.load("picture")
    let y = try #require(model.modelDescription.outputDescriptionsByName["y"])
    #expect(y.type == .image && y.multiArrayConstraint == nil)
    #expect(y.imageConstraint?.pixelsHigh == 6 && y.imageConstraint?.pixelsWide == 4)
    let error = #expect(throws: MLModelError.self) {
      try model.prediction(from: features(counting([1, 3, 6, 4])))
    }
    #expect(error?.code == .featureType)
    #expect(error?.localizedDescription.contains("feature y is an image") == true)
  }

  /// As Apple's header has it: without the multi-function configuration the list is empty.
  @Test(arguments: ["fixed32", "enumerated"])
  func aModelOfOneFunctionListsNone(name: String) async throws {
    #expect(try await MLModelAsset(url: Models.named(name)).functionNames == [])
  }

  @Test func anAssetDescribesWhatALoadedModelDescribes() async throws {
    let asset = try MLModelAsset(url: Models.named("fixed16"))
    let (found, loaded) = (try await asset.modelDescription, try Models.load("fixed16"))
    let expected = loaded.modelDescription
    let x = try #require(found.inputDescriptionsByName["x"]?.multiArrayConstraint)
    #expect(x.shape == [1, 2, 3, 5] && x.dataType == .float16)
    #expect(
      found.metadata[.creatorDefinedKey] as? [String: String]
        == expected.metadata[.creatorDefinedKey] as? [String: String])
    #expect(found.metadata[.author] as? String == "a test")
    let y = found.outputDescriptionsByName["y"]?.multiArrayConstraint?.shape
    #expect(y == expected.outputDescriptionsByName["y"]?.multiArrayConstraint?.shape)
  }

  @Test func anAssetDescribesEachOfItsFunctions() async throws {
    func shape(_ description: MLModelDescription) -> [NSNumber]? {
      description.inputDescriptionsByName["x"]?.multiArrayConstraint?.shape
    }
    let asset = try MLModelAsset(url: Models.named("functions"))
    #expect(try await shape(asset.modelDescription) == [1, 2, 3, 5])
    #expect(try await shape(asset.modelDescription(of: "wide")) == [1, 2, 3, 7])
    let error = await #expect(throws: MLModelError.self) {
      _ = try await asset.modelDescription(of: "third")
    }
    #expect(error?.code == .io)
    #expect(error?.localizedDescription.contains("no function 'third'") == true)
    let package = try MLModelAsset(url: Models.named("functions", extension: "mlpackage"))
    await #expect(throws: MLModelError.self) { _ = try await package.modelDescription }
  }
}
