import Synchronization

/// The functions of a tiled decoder that are in memory; nil names the model's default one.
final class PartStore: Sendable {
  private let parts = Mutex<[String?: LoadedPart]>([:])

  subscript(name: String?) -> LoadedPart? {
    get { parts.withLock { $0[name] } }
    set { parts.withLock { $0[name] = newValue } }
  }

  func removeAll() { parts.withLock { $0 = [:] } }
}
