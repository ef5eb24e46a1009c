import Foundation

/// A compiled model on disk that is not loaded. What it says of itself is read without loading it.
///
/// Apple's forms with a completion handler are not declared.
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

  /// The names of the model's functions; empty for a model that does not use several.
  public var functionNames: [String] {
    get async throws {
      let names = try await LoadedModel.ask("functions", url, function: nil).functions ?? []
      // coremltools gives the function of an ordinary model this name.
      return names == ["main"] ? [] : names
    }
  }

  /// The description of the default function.
  public var modelDescription: MLModelDescription {
    get async throws { try await description(of: nil) }
  }

  /// The description of a function. Throws `MLModelError.io` for a name that the model lacks.
  public func modelDescription(of functionName: String) async throws -> MLModelDescription {
    try await description(of: functionName)
  }

  private func description(of function: String?) async throws -> MLModelDescription {
    let reply = try await LoadedModel.ask("describe", url, function: function)
    guard let description = reply.description else {
      throw MLModelError(.generic, "The engine's answer lacks the description.")
    }
    return try MLModelDescription(description)
  }
}
