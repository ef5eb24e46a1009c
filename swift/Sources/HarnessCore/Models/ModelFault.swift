import Foundation

/// A model that is not what was asked for.
public enum ModelFault: Error, Equatable, Sendable {
  case missing(path: String)
  case load(path: String, reason: String)
  case record(String)
  case image(feature: String)
  case unreadable(feature: String)
  case noShape(feature: String)
  case unsupportedInput(feature: String)
  case size(ImageSize, declared: String)
  case sizeUnknown
  case shape(wanted: [Int], declared: String)
  case prediction(reason: String)
  case output(name: String)
  case compile(reason: String)
  case exists(path: String)
  case write(path: String, reason: String)
  case otherPart(path: String, number: Int, expected: String)
  case foreignPart(path: String, other: String)
  case seam(name: String)
  case tiled(path: String)
  case everyUnit([UnitFailure])

  /// Whether other compute units may do better: what a device did, not what the model declares.
  var dependsOnUnits: Bool {
    switch self {
    case .load, .prediction, .output: true
    default: false
    }
  }
}

extension ModelFault: LocalizedError {
  /// One sentence: what was expected, what came, what to do next.
  public var errorDescription: String? {
    switch self {
    case .missing(let path): "there is no model at \(path)"
    case .load(let path, let reason): "\(path) cannot be loaded: \(reason)"
    case .record(let reason): "the model's fluxvae metadata is not understood: \(reason)"
    case .image(let feature):
      "\(feature) is an image; this harness compares tensors: convert with --output tensor"
    case .unreadable(let feature): "\(feature) is neither an array nor an image"
    case .noShape(let feature):
      "the model does not state a shape for \(feature): give --size or --io"
    case .unsupportedInput(let feature):
      "\(feature) is of a type that cannot be made up: give --io with a bundle for this model"
    case .size(let size, let declared):
      "the model has no size \(size); it takes \(declared)"
    case .sizeUnknown:
      "--size needs a model whose metadata states layout and scale, as fluxvae's do: leave it out"
    case .shape(let wanted, let declared):
      "the model takes no array of shape \(wanted); it takes \(declared)"
    case .prediction(let reason): "the prediction failed: \(reason)"
    case .output(let name): "the model gave no array called \(name)"
    case .compile(let reason): "the model was not compiled: \(reason)"
    case .exists(let path): "\(path) exists already: pass --overwrite to replace it"
    case .write(let path, let reason): "\(path) cannot be written: \(reason)"
    case .otherPart(let path, let number, let expected):
      "\(path) is part \(number) of 2 of a decoder: expected the other part beside it as \(expected)"
    case .foreignPart(let path, let other):
      "\(other) is not the other part of \(path), but of another conversion: convert both again"
    case .seam(let name): "the second part takes \(name), which the first part does not give"
    case .tiled(let path):
      "\(path) makes tiles with several functions, and this harness runs one: use fluxvae validate"
    case .everyUnit(let failures):
      "no compute units gave a result: "
        + failures.map { "\($0.computeUnits.rawValue): \($0.failure)" }.joined(separator: "; ")
    }
  }
}
