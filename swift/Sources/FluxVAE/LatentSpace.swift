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

  /// FLUX.1's latent in the VAE's own space, 16 channels; what its full decoder takes by default.
  public static let flux1VAE = LatentSpace(rawValue: "flux1-vae")

  /// FLUX.2's latent in the VAE's own space, after the inverse batch-norm, 32 channels.
  public static let flux2VAEUnpatchified = LatentSpace(rawValue: "flux2-vae-unpatchified")

  /// FLUX.1's latent as the transformer leaves it: tokens of 64 numbers, one for each 2 x 2 patch.
  ///
  /// As a `Latent`: 64 channels of a sixteenth of the image's sides, in the layout `.nhwc`.
  public static let flux1SamplerPacked = LatentSpace(rawValue: "flux1-sampler-packed")

  /// FLUX.2's normalised latent as the transformer leaves it: 128 channels, 2 x 2 patches.
  public static let flux2SamplerPacked = LatentSpace(rawValue: "flux2-sampler-packed")
}

extension LatentSpace: CustomStringConvertible {
  public var description: String { rawValue }
}
