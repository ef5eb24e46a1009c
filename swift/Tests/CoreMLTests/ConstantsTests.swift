import Foundation
import Testing

@testable import CoreML

/// Values of Apple's headers, written out again here.
struct ConstantsTests {
  @Test func rawValuesAreThoseOfApplesHeaders() {
    #expect(MLComputeUnits.cpuOnly.rawValue == 0 && MLComputeUnits.cpuAndGPU.rawValue == 1)
    #expect(MLComputeUnits.all.rawValue == 2 && MLComputeUnits.cpuAndNeuralEngine.rawValue == 3)
    #expect(MLMultiArrayDataType.double.rawValue == 65600)
    #expect(MLMultiArrayDataType.float32.rawValue == 65568)
    #expect(MLMultiArrayDataType.float16.rawValue == 65552)
    #expect(MLMultiArrayDataType.int32.rawValue == 131104)
    #expect(MLFeatureType.image.rawValue == 4 && MLFeatureType.multiArray.rawValue == 5)
    #expect(MLMultiArrayShapeConstraintType.range.rawValue == 3)
  }

  @Test func errorsCarryApplesDomainAndCodes() {
    let codes: [MLModelError.Code] = [
      .generic, .featureType, .io, .customLayer, .customModel, .update, .parameters,
      .modelDecryptionKeyFetch, .modelDecryption, .modelCollection, .predictionCancelled,
    ]
    #expect(codes.map(\.rawValue) == [0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11])
    let error: any Error = MLModelError(.io, "A sentence.")
    #expect((error as? CustomNSError)?.errorCode == 3)
    #expect(MLModelError.errorDomain == "com.apple.CoreML")
    #expect(error.localizedDescription == "A sentence.")
    #expect(throws: MLModelError(.io, "A sentence.")) { throw error }
  }

  @Test func aModelMayUseAllUnitsUnlessToldOtherwise() {
    #expect(MLModelConfiguration().computeUnits == .all)
    #expect(MLModelConfiguration().optimizationHints.reshapeFrequency == .frequent)
    #expect(MLModelConfiguration().functionName == nil)
  }

  @Test func theOnlyDeviceIsTheCPU() {
    #expect(MLModel.availableComputeDevices.count == 1)
    guard case .cpu = MLComputeDevice.allComputeDevices.first else {
      Issue.record("the device is not the CPU")
      return
    }
  }

  @Test func aComputePlanIsRefusedAndNotInvented() async {
    let url = URL(filePath: "/nowhere/model.mlmodelc")
    await #expect(throws: MLModelError.self) {
      _ = try await MLComputePlan.load(contentsOf: url, configuration: MLModelConfiguration())
    }
    await #expect(throws: MLModelError.self) {
      _ = try await MLModelStructure.load(contentsOf: url)
    }
    await #expect(throws: MLModelError.self) { _ = try await MLModel.compileModel(at: url) }
  }
}
