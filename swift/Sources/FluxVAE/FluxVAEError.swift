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
  /// An element type that is not a float.
  case elementType(Int)
  /// Strides that do not describe an array of this shape.
  case strides([Int], shape: [Int])
  /// A latent's count of numbers that does not fit its rows and columns.
  case latentCount(count: Int, height: Int, width: Int)
  /// A shape that is not one latent of this layout; nil where none was said.
  case latentShape([Int], layout: TensorLayout?)
  /// A matrix of tokens without rows and columns that fits images of several sizes.
  case latentAmbiguous([Int], sizes: [ImageSize])
  /// Values, of the latent or another part of the decode, that are NaN, infinite, or infinite once
  /// they have the model's element type.
  case nonFinite(what: String, count: Int, of: Int)
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
    case .elementType, .strides, .latentCount, .latentShape, .latentAmbiguous, .channels,
      .unsupportedSize, .smallerThanTile:
      latentSentence
    case .predictionFailed, .unexpectedOutput, .nonFinite, .unknownRange, .noImage:
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
    case .strides(let strides, let shape):
      "The strides \(strides) do not describe an array of shape \(shape)."
    case .latentCount(let count, let height, let width):
      """
      A latent of \(height) x \(width) needs a multiple of \(height) x \(width) numbers, one for \
      each channel; got \(count).
      """
    case .latentShape(let shape, let layout):
      "Expected one latent of shape \(axes(layout)), got \(shape): decode one at a time."
    case .latentAmbiguous(let shape, let sizes):
      """
      Tokens of shape \(shape) could make images of \
      \(sizes.map(\.description).joined(separator: " or ")): make a Latent of height and width.
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
    case .nonFinite(let what, let count, let total):
      """
      \(count) of the \(total) values of the \(what) are NaN, infinite or too large for the \
      model's element type, and would be black or wrong pixels: \(nonFiniteHint(what)).
      """
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

  private func axes(_ layout: TensorLayout?) -> String {
    switch layout {
    case .nchw: "(1, C, h, w)"
    case .nhwc: "(1, h, w, C)"
    case nil: "(1, C, h, w) or (1, h, w, C)"
    }
  }

  private func nonFiniteHint(_ what: String) -> String {
    what == "latent"
      ? "check what made the latent"
      : "check that the latent is of the space this decoder takes, or convert it at float32"
  }

  private func of(_ function: String?) -> String {
    function.map { " (function \($0))" } ?? ""
  }

  private func hint(_ url: URL) -> String {
    url.pathExtension == "mlmodelc" ? "" : " An app loads a compiled model (.mlmodelc)."
  }
}
