import CoreML
import Foundation

/// One function of a model in memory.
///
/// `MLModel` is not declared as safe to share. It is here because nothing else holds this one: the
/// decoder lets one prediction at a time reach it (see `TurnGate`).
struct LoadedFunction: @unchecked Sendable {
  let interface: DecoderInterface
  private let model: MLModel

  init(_ model: MLModel, _ interface: DecoderInterface) {
    self.model = model
    self.interface = interface
  }

  /// - Throws: `FluxVAEError`; `CancellationError`.
  func decode(_ latent: LatentMap, size: ImageSize) async throws -> DecodedImage {
    try Task.checkCancellation()
    let input = try provider(latent)
    let output: any MLFeatureProvider
    do {
      output = try await model.prediction(from: input)
    } catch {
      try Task.checkCancellation()  // Core ML has an error of its own for it
      throw FluxVAEError.predictionFailed(reason: error.localizedDescription)
    }
    try Task.checkCancellation()
    return try image(in: output, size: size)
  }

  /// The latent in the model's layout and element type.
  private func provider(_ latent: LatentMap) throws -> MLDictionaryFeatureProvider {
    guard let dataType = MLMultiArrayDataType(rawValue: interface.input.dataType) else {
      throw FluxVAEError.elementType(interface.input.dataType)
    }
    let array = try MLMultiArray.filled(
      with: latent.values(in: interface.inputOrder), shape: interface.inputShape(latent),
      dataType: dataType, what: "latent")
    return try MLDictionaryFeatureProvider(
      dictionary: [interface.input.name: MLFeatureValue(multiArray: array)])
  }

  private func image(in output: any MLFeatureProvider, size: ImageSize) throws -> DecodedImage {
    let layout = interface.layout
    let expected = layout.shape(channels: 3, height: size.height, width: size.width)
    let array = output.featureValue(for: interface.output.name)?.multiArrayValue
    let found = array?.shape.map(\.intValue)
    guard let array, found == expected else {
      throw FluxVAEError.unexpectedOutput(expected: expected, found: found)
    }
    return try DecodedImage(
      checking: array.floats(), size: size, layout: layout,
      range: interface.record?.contract.range)
  }
}
