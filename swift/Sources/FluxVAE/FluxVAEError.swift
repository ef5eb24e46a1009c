import Foundation

/// Everything that can go wrong between a model file and an image, with the values at fault.
public enum FluxVAEError: Error, Equatable, Sendable {
  /// There is nothing at the model's address.
  case modelNotFound(URL)
  /// Core ML could not load the model, for the reason it gave.
  case loadFailed(URL, function: String?, reason: String)
  /// The model has no latent contract: fluxvae did not make it.
  case contractMissing(URL)
  /// The model's contract is for another latent space than the app's.
  case contractMismatch(URL, expected: LatentSpace, found: LatentSpace)
  /// The record that fluxvae left in the model cannot be read.
  case recordDamaged(key: String, reason: String)
  /// The record is of another version of fluxvae.
  case recordFormat(found: String, readable: String)
  /// The model is not a decoder of one latent to one image, both tensors.
  case notADecoder(reason: String)
  /// The model says one thing in its record and another in its description.
  case contradiction(what: String, record: String, description: String)
  /// An element type that is no float.
  case elementType(Int)
  /// Strides that reach beyond the buffer they are for.
  case strides(reach: Int, capacity: Int)
  /// A latent's count of numbers that does not fit its rows and columns.
  case latentCount(count: Int, height: Int, width: Int)
  /// A latent's shape that is not one latent of this layout.
  case latentShape([Int], layout: TensorLayout)
  /// A latent of another number of channels than the model takes.
  case channels(expected: Int, found: Int)
  /// A latent of a size that the model does not take.
  case unsupportedSize(ImageSize, supported: [ImageSize])
  /// An image that is smaller than one tile of the model.
  case smallerThanTile(ImageSize, tile: ImageSize)
  /// Core ML failed to predict, for the reason it gave.
  case predictionFailed(reason: String)
  /// The model gave something else than its description promises.
  case unexpectedOutput(expected: [Int], found: [Int]?)
  /// Neither the model nor the app says which values black and white stand for.
  case unknownRange
  /// CoreGraphics made no image of this size.
  case noImage(ImageSize)
}

extension FluxVAEError: LocalizedError {
  /// One sentence: what was expected, what came, what to do next.
  public var errorDescription: String? {
    switch self {
    case .modelNotFound, .loadFailed, .contractMissing, .contractMismatch, .recordDamaged,
      .recordFormat, .notADecoder, .contradiction:
      modelSentence
    case .elementType, .strides, .latentCount, .latentShape, .channels, .unsupportedSize,
      .smallerThanTile:
      latentSentence
    case .predictionFailed, .unexpectedOutput, .unknownRange, .noImage:
      imageSentence
    }
  }

  private var modelSentence: String? {
    switch self {
    case .modelNotFound(let url):
      "There is no model at \(url.path): check that the app's bundle holds it."
    case .loadFailed(let url, let function, let reason):
      "Core ML could not load \(url.lastPathComponent)\(of(function)): \(reason)\(hint(url))"
    case .contractMissing(let url):
      """
      \(url.lastPathComponent) says nothing of the latent it wants: convert it with fluxvae, or \
      ask for ContractCheck.allowMissing.
      """
    case .contractMismatch(let url, let expected, let found):
      """
      \(url.lastPathComponent) decodes latents of the space \(found), and the app has \
      \(expected): the colours would be wrong. Take the decoder for \(expected).
      """
    case .recordDamaged(let key, let reason):
      "The model's fluxvae record is damaged at \(key): \(reason). Convert the model again."
    case .recordFormat(let found, let readable):
      """
      The model's fluxvae record has the format \(found), this library reads \(readable): \
      convert the model again, or update the library.
      """
    case .notADecoder(let reason):
      "A decoder takes one latent tensor and gives one image tensor; \(reason)."
    case .contradiction(let what, let record, let description):
      """
      The model's fluxvae record gives \(what) as \(record), its description as \(description): \
      convert the model again.
      """
    default: nil
    }
  }

  private var latentSentence: String? {
    switch self {
    case .elementType(let raw):
      "Expected float16, float32 or float64 elements, got Core ML's type \(raw)."
    case .strides(let reach, let capacity):
      "An array's strides reach \(reach) elements far; its buffer holds \(capacity)."
    case .latentCount(let count, let height, let width):
      """
      A latent of \(height) x \(width) needs a multiple of \(height) x \(width) numbers, one for \
      each channel; got \(count).
      """
    case .latentShape(let shape, let layout):
      """
      Expected one latent of shape \(layout == .nchw ? "(1, C, h, w)" : "(1, h, w, C)"), got \
      \(shape): decode one at a time.
      """
    case .channels(let expected, let found):
      """
      The decoder takes latents of \(expected) channels, got \(found): FLUX.1 has 16, FLUX.2 has \
      32 once unpatchified; packed in 2 x 2 patches they have 64 and 128.
      """
    case .unsupportedSize(let size, let supported):
      """
      The decoder does not make images of \(size); it makes \
      \(supported.map(\.description).joined(separator: ", ")).
      """
    case .smallerThanTile(let size, let tile):
      """
      The model makes images from tiles of \(tile) pixels, and \(size) is smaller: use a decoder \
      made for that size.
      """
    default: nil
    }
  }

  private var imageSentence: String? {
    switch self {
    case .predictionFailed(let reason):
      "Core ML could not decode the latent: \(reason)"
    case .unexpectedOutput(let expected, let found):
      "The decoder should have given the shape \(expected), got \(found.map { "\($0)" } ?? "none")."
    case .unknownRange:
      """
      The model does not say which values black and white stand for: give the range, 0...1 for \
      the tiny decoders, -1...1 for the full ones.
      """
    case .noImage(let size):
      "CoreGraphics made no image of \(size)."
    default: nil
    }
  }

  private func of(_ function: String?) -> String {
    function.map { " (function \($0))" } ?? ""
  }

  private func hint(_ url: URL) -> String {
    url.pathExtension == "mlmodelc" ? "" : " An app loads a compiled model (.mlmodelc)."
  }
}
