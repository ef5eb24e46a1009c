import Foundation
import Testing

@testable import CoreML

@Suite(.enabled(if: Models.isPossible, Models.reason))
struct PredictionTests {
  @Test(arguments: [("fixed32", MLMultiArrayDataType.float32), ("fixed16", .float16)])
  func aModelComputes(name: String, type: MLMultiArrayDataType) throws {
    let model = try Models.load(name)
    let output = try model.prediction(from: features(counting([1, 2, 3, 5], type)))
    let y = try #require(output.featureValue(for: "y")?.multiArrayValue)
    #expect(output.featureNames == ["y"])
    #expect(y.dataType == type && y.strides == [30, 15, 5, 1])
    #expect(elements(y) == expected(30))
  }

  @Test func inputsMayHaveAnyStridesAndAnotherElementType() throws {
    let model = try Models.load("fixed16")
    let input = counting([1, 2, 3, 5], .double, strides: [200, 100, 20, 3], from: 4)
    let output = try model.prediction(from: features(input), options: MLPredictionOptions())
    #expect(
      try elements(#require(output.featureValue(for: "y")?.multiArrayValue))
        == expected(30, from: 4))
  }

  @Test func severalPredictionsMayBeUnderWay() async throws {
    let url = try Models.named("fixed32")
    let results = try await withThrowingTaskGroup(of: (Int, [Double]).self) { group in
      let shared = Shared(try await MLModel.load(contentsOf: url))
      for first in 0..<8 {
        group.addTask {
          let output = try await shared.model.prediction(
            from: features(counting([1, 2, 3, 5], from: first)))
          return (first, elements(try #require(output.featureValue(for: "y")?.multiArrayValue)))
        }
      }
      return try await group.reduce(into: [:]) { $0[$1.0] = $1.1 }
    }
    #expect(results.count == 8)
    for (first, found) in results { #expect(found == expected(30, from: first)) }
  }

  @Test func aBackingIsFilledAndHandedBack() throws {
    let model = try Models.load("fixed32")
    let options = MLPredictionOptions()
    let backing = MLMultiArray(
      shape: [1, 2, 3, 5], dataType: .float32, strides: [128, 64, 16, 2])
    options.outputBackings = ["y": backing, "unknown": backing]
    let output = try model.prediction(from: features(counting([1, 2, 3, 5])), options: options)
    #expect(output.featureValue(for: "y")?.multiArrayValue === backing)
    #expect(elements(backing) == expected(30))
    // one that does not fit is left alone
    options.outputBackings = ["y": try MLMultiArray(shape: [30], dataType: .float32)]
    let other = try model.prediction(from: features(counting([1, 2, 3, 5])), options: options)
    #expect(other.featureValue(for: "y")?.multiArrayValue?.shape == [1, 2, 3, 5])
  }

  @Test(arguments: [("16", 8), ("64", 32), ("6", 6), ("2", 5), ("10", 5)])
  func rowsArePaddedOnRequest(alignment: String, row: Int) throws {
    let url = try Models.named("fixed16")
    let model = try MLModel(
      LoadedModel.load(url, function: nil), configuration: MLModelConfiguration(),
      environment: ["FLUXVAE_OUTPUT_ROW_ALIGNMENT": alignment])
    let output = try model.prediction(from: features(counting([1, 2, 3, 5])))
    let y = try #require(output.featureValue(for: "y")?.multiArrayValue)
    #expect(y.strides.map(\.intValue) == [6 * row, 3 * row, row, 1])
    #expect(elements(y) == expected(30))
    if row > 5 {
      // what lies between the rows must not pass for a number
      #expect(y.withUnsafeBufferPointer(ofType: Float16.self) { $0[5].isNaN })
    }
  }

  @Test(arguments: ["0", "-64", "much", "9999999999999999999"])
  func anImpossibleAlignmentIsRefused(text: String) {
    #expect(throws: MLModelError.self) {
      try EngineOutputs.requestedRowAlignment(["FLUXVAE_OUTPUT_ROW_ALIGNMENT": text])
    }
  }

  @Test func aFunctionIsChosenByName() async throws {
    let wide = try Models.load("functions", function: "wide")
    let y = try await wide.prediction(from: features(counting([1, 2, 3, 7])))
    #expect(y.featureValue(for: "y")?.multiArrayValue?.count == 42)
    let usual = try Models.load("functions")
    #expect(
      usual.modelDescription.inputDescriptionsByName["x"]?.multiArrayConstraint?.shape
        == [1, 2, 3, 5])
    let asset = try MLModelAsset(url: Models.named("functions"))
    #expect(try await asset.functionNames == ["double", "wide"])
    let error = #expect(throws: MLModelError.self) {
      try Models.load("functions", function: "third")
    }
    #expect(error?.localizedDescription.contains("no function 'third'") == true)
  }
}

/// Core ML's documentation allows several asynchronous predictions of one model at a time.
private final class Shared: @unchecked Sendable {
  let model: MLModel

  init(_ model: MLModel) { self.model = model }
}
