// The same for code without tasks: each blocks its thread until the work is done.
extension LatentDecoder {
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
