import Foundation

extension ContractCheck {
  /// Holds a model's contract against the latents an app has.
  ///
  /// - Throws: `FluxVAEError.contractMissing` or `.contractMismatch`.
  func judge(_ contract: LatentContract?, for space: LatentSpace, model: URL) throws {
    guard self != .off else { return }
    guard let contract else {
      if self == .allowMissing { return }
      throw FluxVAEError.contractMissing(model)
    }
    guard contract.space == space.rawValue else {
      throw FluxVAEError.contractMismatch(
        model, expected: space, found: LatentSpace(rawValue: contract.space))
    }
  }
}
