import Synchronization

/// The functions of a decoder that are in memory.
final class FunctionStore: Sendable {
  private struct State {
    var epoch = 0
    var main: LoadedFunction?
    var others: [String: LoadedFunction] = [:]
  }

  private let state = Mutex(State())

  /// Counts how often everything was let go.
  var epoch: Int { state.withLock { $0.epoch } }

  /// The function of this name, or the main one.
  subscript(name: String?) -> LoadedFunction? {
    state.withLock { state in name.map { state.others[$0] } ?? state.main }
  }

  /// Keeps a function, unless everything was let go since `epoch`.
  func keep(_ function: LoadedFunction, as name: String?, since epoch: Int) {
    state.withLock { state in
      guard state.epoch == epoch else { return }
      if let name {
        state.others[name] = function
      } else {
        state.main = function
      }
    }
  }

  func removeAll() {
    state.withLock { state in
      state = State(epoch: state.epoch + 1)
    }
  }
}
