import Foundation
import Glibc
import TestSupport
import Testing

@testable import CoreML

@Suite(.enabled(if: Models.isPossible, Models.reason))
struct FailureTests {
  /// The texts are those of Core ML in alibaba/MNN#1672 and apple/coremltools#672.
  @Test(arguments: [
    (
      "fixed32", [1, 2, 3, 4],
      "MultiArray shape (1 x 2 x 3 x 4) does not match the shape (1 x 2 x 3 x 5) "
        + "specified in the model description"
    ),
    ("enumerated", [1, 2, 3], "Shape (1 x 2 x 3) was not in enumerated set of allowed shapes"),
  ])
  func aWrongShapeIsRefusedInCoreMLsWords(name: String, shape: [Int], reason: String) throws {
    let model = try Models.load(name)
    let error = try #require(
      #expect(throws: MLModelError.self) { try model.prediction(from: features(counting(shape))) })
    #expect(error.code == .featureType)
    #expect(
      error.localizedDescription == "For input feature 'x', the provided shape "
        + "(\(shape.map(String.init).joined(separator: " × "))) is not compatible with the "
        + "model's feature description.")
    let underlying = try #require(error.userInfo[NSUnderlyingErrorKey] as? MLModelError)
    #expect(underlying.code == .generic && underlying.localizedDescription == reason)
  }

  @Test func aMissingFeatureIsNamed() throws {
    let model = try Models.load("fixed32")
    let wrong = try MLDictionaryFeatureProvider(dictionary: ["z": counting([1, 2, 3, 5])])
    let error = #expect(throws: MLModelError.self) { try model.prediction(from: wrong) }
    #expect(error?.localizedDescription == "Feature x is required but not specified.")
    let number = try MLDictionaryFeatureProvider(dictionary: ["x": 1])
    #expect(throws: MLModelError.self) { try model.prediction(from: number) }
  }

  @Test func whatIsNoModelIsAnInputOutputError() throws {
    let missing = URL(filePath: "/nowhere/at/all.mlmodelc")
    let error = #expect(throws: MLModelError.self) { try MLModel(contentsOf: missing) }
    #expect(error?.code == .io)
    #expect(error?.localizedDescription.contains("/nowhere/at/all.mlmodelc") == true)
    #expect(throws: MLModelError.self) { try MLModelAsset(url: missing) }
  }

  @Test func aPackageThatIsNotCompiledIsRefusedAsOnAMac() throws {
    let package = try Models.named("fixed32", extension: "mlpackage")
    let error = #expect(throws: MLModelError.self) { try MLModel(contentsOf: package) }
    #expect(error?.code == .io)
    #expect(error?.localizedDescription.contains("not compiled") == true)
  }

  @Test func aDamagedModelIsRefusedWithItsReason() throws {
    let copy = FileManager.default.temporaryDirectory.appending(
      path: "damaged-\(ProcessInfo.processInfo.processIdentifier).mlmodelc")
    defer { try? FileManager.default.removeItem(at: copy) }
    try FileManager.default.copyItem(at: Models.named("fixed32"), to: copy)
    let text = try String(contentsOf: copy.appending(path: "model.mil"), encoding: .utf8)
    try text.prefix(text.count / 2).write(
      to: copy.appending(path: "model.mil"), atomically: true, encoding: .utf8)
    let error = #expect(throws: MLModelError.self) { try MLModel(contentsOf: copy) }
    #expect(error?.code == .io)
    #expect(error?.localizedDescription.contains(copy.path) == true)
  }

  @Test func aPythonThatIsNotThereIsReported() {
    let error = #expect(throws: MLModelError.self) { try Engine(python: "/nowhere/python") }
    #expect(error?.localizedDescription.contains("FLUXVAE_PYTHON") == true)
  }

  @Test(.timeLimit(.minutes(2)))
  func aPythonWithoutFluxvaeIsReported() throws {
    let engine = try Engine(python: "/bin/false")
    let url = try Models.named("fixed32")
    let error = #expect(throws: MLModelError.self) {
      try LoadedModel.load(url, function: nil, engine: engine)
    }
    #expect(error?.localizedDescription.contains("ended with exit code 1") == true)
  }

  /// The engine is stopped first, so that the prediction is under way for certain when it dies.
  @Test(.timeLimit(.minutes(2)))
  func anEngineKilledInMidPredictionIsAnErrorAndNoHang() async throws {
    let engine = try Engine(python: EnginePython.path)
    let url = try Models.named("ranged")
    let loaded = try LoadedModel.load(url, function: nil, engine: engine)
    let model = try MLModel(loaded, configuration: MLModelConfiguration())
    let pid = engine.process.identifier
    kill(pid, SIGSTOP)
    Thread.detachNewThread {
      usleep(200_000)
      kill(pid, SIGKILL)
    }
    let input = try features(counting([1, 2, 8, 5]))
    let error = try #require(
      await #expect(throws: MLModelError.self) { _ = try await model.prediction(from: input) })
    #expect(error.localizedDescription.contains("was ended by signal 9"))
    // Asking again must neither hang nor raise SIGPIPE, and a new load gets a new engine.
    let again = #expect(throws: MLModelError.self) { try predictOnce(model) }
    #expect(again == error)
    #expect(kill(pid, 0) != 0 && errno == ESRCH)  // reaped: no zombie is left
  }

  /// More than a socket holds, so that writing itself meets the end of the engine.
  @Test(.timeLimit(.minutes(2)))
  func anEngineKilledWhileItIsWrittenToRaisesNoSignal() throws {
    let engine = try Engine(python: EnginePython.path)
    let pid = engine.process.identifier
    kill(pid, SIGSTOP)
    Thread.detachNewThread {
      usleep(200_000)
      kill(pid, SIGKILL)
    }
    let error = #expect(throws: MLModelError.self) {
      try engine.ask(EngineRequest(op: "predict"), payload: Data(count: 1 << 24))
    }
    #expect(error?.localizedDescription.contains("signal 9") == true)
  }
}

/// Outside of an asynchronous function, where the synchronous overload is the one that is meant.
private func predictOnce(_ model: MLModel) throws -> any MLFeatureProvider {
  try model.prediction(from: features(counting([1, 2, 8, 5])))
}
