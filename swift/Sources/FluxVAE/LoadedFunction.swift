import CoreML
import Foundation

/// One function of a model in memory.
///
/// `MLModel` is not declared as safe to share. It is here because nothing else holds this one: the
/// decoder lets one prediction at a time reach it (see `TurnGate`).
struct LoadedFunction: @unchecked Sendable {
  let interface: DecoderInterface
  private let model: MLModel

  /// - Throws: `FluxVAEError` when the model is no decoder, or its record is damaged.
  init(_ model: MLModel, ignoringRecord: Bool) throws {
    let description = model.modelDescription
    let metadata = description.metadata[.creatorDefinedKey] as? [String: String] ?? [:]
    let record =
      ignoringRecord
      ? try? ArtifactRecord(metadata: metadata) : try ArtifactRecord(metadata: metadata)
    if record?.tiles != nil {
      throw FluxVAEError.notADecoder(reason: "this model makes tiles: use TiledDecoder")
    }
    if let part = record?.part {
      throw FluxVAEError.notADecoder(
        reason: "this model is part \(part.number) of \(part.of); the other is \(part.other)")
    }
    self.model = model
    interface = try DecoderInterface(
      input: TensorFeature(only: description.inputDescriptionsByName, side: "input"),
      output: TensorFeature(only: description.outputDescriptionsByName, side: "output"),
      record: record)
  }

  func decode(_ latent: Latent, size: ImageSize) throws -> DecodedImage {
    let input = try provider(latent)
    let output = try withPool { try predicting { try model.prediction(from: input) } }
    return try image(in: output, size: size)
  }

  func decode(_ latent: Latent, size: ImageSize) async throws -> DecodedImage {
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

  private func predicting<Result>(_ body: () throws -> Result) throws -> Result {
    do {
      return try body()
    } catch {
      throw FluxVAEError.predictionFailed(reason: error.localizedDescription)
    }
  }

  /// The latent in the model's layout and element type.
  private func provider(_ latent: Latent) throws -> MLDictionaryFeatureProvider {
    guard let dataType = MLMultiArrayDataType(rawValue: interface.input.dataType) else {
      throw FluxVAEError.elementType(interface.input.dataType)
    }
    let array = try MLMultiArray.filled(
      with: latent.values(in: interface.inputOrder), shape: interface.inputShape(latent),
      dataType: dataType)
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
    return DecodedImage(
      values: try array.floats(), size: size, layout: layout,
      range: interface.record?.contract.range)
  }
}
