/// Bytes behind a reply's header: read once by the engine's thread, and not changed before an
/// output array takes them over. That is why it may cross threads.
final class EnginePayload: @unchecked Sendable {
  let bytes: UnsafeMutableRawBufferPointer

  init(count: Int) {
    bytes = .allocate(byteCount: max(1, count), alignment: 64)
  }

  deinit { bytes.deallocate() }
}
