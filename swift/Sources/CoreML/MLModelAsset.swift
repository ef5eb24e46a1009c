import Foundation

/// A compiled model on disk that is not loaded.
open class MLModelAsset: NSObject {
  let url: URL

  /// Throws `MLModelError.io` when nothing is there.
  public convenience init(url compiledModelURL: URL) throws {
    guard FileManager.default.fileExists(atPath: compiledModelURL.path) else {
      throw MLModelError(.io, "There is no model at \(compiledModelURL.path).")
    }
    self.init(at: compiledModelURL)
  }

  init(at url: URL) { self.url = url }

  /// The names of the model's functions.
  public var functionNames: [String] {
    get async throws {
      let request = EngineRequest(op: "functions", path: url.path)
      return try await Engine.shared().ask(request).0.functions ?? []
    }
  }
}
