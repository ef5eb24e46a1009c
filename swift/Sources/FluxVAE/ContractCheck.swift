/// How strictly a model's latent contract is held against the latents an app has.
public enum ContractCheck: Sendable, Hashable {
  /// The contract must be there and name the app's latent space. The default.
  case required
  /// A model without a contract is taken; a contract for another space is refused.
  case allowMissing
  /// Nothing is compared: the app answers for its latents itself.
  case off
}
