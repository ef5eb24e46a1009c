import Foundation

/// What a model is fed in bench and drift: a bundle's input, or made-up numbers.
struct Feed {
  /// Seed of made-up numbers.
  static let seed = 0

  let tensors: [String: Tensor]
  let report: InputReport
  /// What could not be checked, and what becomes of the input.
  let notes: [String]

  /// - Parameter shapes: of every input, by name.
  /// - Throws: `BundleError` when the bundle was made for another model; `ModelFault` for inputs
  ///   that cannot be made up.
  init(bundle: IOBundle?, interface: Interface, shapes: [String: [Int]]) throws {
    if let bundle {
      notes = try bundle.agreement(with: interface).notes
      tensors = [bundle.manifest.input.name: bundle.input]
      report = InputReport(bundle)
      return
    }
    var generator = SplitMix64(seed: UInt64(Self.seed))
    var made: [String: Tensor] = [:]
    for feature in interface.inputs {
      guard let shape = shapes[feature.name], let dtype = feature.dtype, dtype != .int32 else {
        throw ModelFault.unsupportedInput(feature: feature.name)
      }
      let count = try Tensor.byteCount(dtype: .float32, shape: shape) / 4
      let values = (0..<count).map { _ in generator.unit() }
      made[feature.name] = try Tensor(values, shape: shape, dtype: dtype)
    }
    tensors = made
    notes = []
    report = InputReport(
      source: .generated, path: nil, case: nil, seed: Self.seed,
      shape: interface.inputs.first.flatMap { shapes[$0.name] } ?? [])
  }
}
