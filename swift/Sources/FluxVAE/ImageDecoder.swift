/// What `LatentDecoder` and `TiledDecoder` have in common: a model that makes images of latents.
public protocol ImageDecoder: Sendable {
  /// Loads what images of `size` take, unless it is loaded; nil is the decoder's first size.
  func load(for size: ImageSize?) async throws
  /// Loads what images of `size` take and releases it again, unless it is loaded.
  func prewarm(for size: ImageSize?) async throws
  /// What the model takes and gives.
  func describe() async throws -> DecoderDescription
  /// The image of a latent.
  func decode(_ latent: Latent) async throws -> DecodedImage
}

// The same for code without tasks: each blocks its thread until the work is done.
extension ImageDecoder {
  /// `load(for:)`, blocking its thread.
  @available(*, noasync, message: "blocks its thread: await load(for:)")
  public func loadBlocking(for size: ImageSize? = nil) throws {
    try blocking { try await self.load(for: size) }
  }

  /// `prewarm(for:)`, blocking its thread.
  @available(*, noasync, message: "blocks its thread: await prewarm(for:)")
  public func prewarmBlocking(for size: ImageSize? = nil) throws {
    try blocking { try await self.prewarm(for: size) }
  }

  /// `describe()`, blocking its thread.
  @available(*, noasync, message: "blocks its thread: await describe()")
  public func describeBlocking() throws -> DecoderDescription {
    try blocking { try await self.describe() }
  }

  /// `decode(_:)`, blocking its thread.
  @available(*, noasync, message: "blocks its thread: await decode(_:)")
  public func decodeBlocking(_ latent: Latent) throws -> DecodedImage {
    try blocking { try await self.decode(latent) }
  }
}
