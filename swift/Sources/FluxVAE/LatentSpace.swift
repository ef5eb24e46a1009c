/// The space a latent lives in, by the identifier that every fluxvae artifact carries.
///
/// Latents of different spaces can have the same shape. Decoding one as the other crashes nothing:
/// the colours are wrong. That is why the app says which one it has.
public struct LatentSpace: RawRepresentable, Hashable, Sendable {
  public let rawValue: String

  public init(rawValue: String) {
    self.rawValue = rawValue
  }

  /// FLUX.1's latent as the sampler leaves it, 16 channels.
  ///
  /// From the VAE's own space: `(z - 0.1159) * 0.3611`.
  public static let flux1Sampler = LatentSpace(rawValue: "flux1-sampler")

  /// FLUX.2's normalised latent as the sampler leaves it, unpatchified from 128 to 32 channels.
  ///
  /// No inverse batch-norm: that belongs to the full decoder.
  public static let flux2SamplerUnpatchified = LatentSpace(rawValue: "flux2-sampler-unpatchified")
}

extension LatentSpace: CustomStringConvertible {
  public var description: String { rawValue }
}
