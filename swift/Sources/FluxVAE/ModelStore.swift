import Synchronization

/// What a decoder keeps between calls: the description it has read and the functions it has loaded.
final class ModelStore<Description: Sendable, Function: Sendable>: Sendable {
  private struct State {
    var epoch = 0
    var description: Description?
    var functions: [String?: Function] = [:]
  }

  private let state = Mutex(State())

  /// Counts how often everything was released.
  ///
  /// Work remembers the count of the moment it was asked for: what it loads after `removeAll()` is
  /// for itself alone and is not kept.
  var epoch: Int { state.withLock { $0.epoch } }

  /// Whether no function is in memory.
  var isEmpty: Bool { state.withLock { $0.functions.isEmpty } }

  var description: Description? { state.withLock { $0.description } }

  /// The function of this name; nil names the default one.
  subscript(name: String?) -> Function? { state.withLock { $0.functions[name] } }

  /// Keeps a description, unless everything was released since `epoch`.
  func keep(_ description: Description, since epoch: Int) {
    state.withLock { if $0.epoch == epoch { $0.description = description } }
  }

  /// Keeps a function, unless everything was released since `epoch`.
  func keep(_ function: Function, as name: String?, since epoch: Int) {
    state.withLock { if $0.epoch == epoch { $0.functions[name] = function } }
  }

  /// Releases everything.
  func removeAll() { state.withLock { $0 = State(epoch: $0.epoch + 1) } }
}
