import Foundation

/// A model that the engine holds, until this object goes.
final class LoadedModel: Sendable {
  let description: EngineDescription
  private let engine: Engine
  private let handle: Int

  init(engine: Engine, reply: EngineReply) throws {
    guard let handle = reply.model, let description = reply.description else {
      throw MLModelError(.generic, "The engine's answer lacks the model it loaded.")
    }
    self.engine = engine
    self.handle = handle
    self.description = description
  }

  deinit { engine.tell(EngineRequest(op: "unload", model: handle)) }

  /// Loads a model in the engine of this process, or in one of the caller's.
  static func load(
    _ url: URL, function: String?, engine own: Engine? = nil
  ) throws -> LoadedModel {
    do {
      let request = try request("load", url, function)
      let engine = try own ?? Engine.shared()
      let (reply, _) = try engine.ask(request)
      return try LoadedModel(engine: engine, reply: reply)
    } catch let error as MLModelError {
      throw explained(error, url)
    }
  }

  /// Loads a model in the engine of this process without blocking a thread.
  static func load(_ url: URL, function: String?) async throws -> LoadedModel {
    do {
      let request = try request("load", url, function)
      let engine = try Engine.shared()
      let (reply, _) = try await engine.ask(request)
      return try LoadedModel(engine: engine, reply: reply)
    } catch let error as MLModelError {
      throw explained(error, url)
    }
  }

  /// Asks the engine of this process about a model that need not be loaded.
  static func ask(_ op: String, _ url: URL, function: String?) async throws -> EngineReply {
    do {
      return try await Engine.shared().ask(request(op, url, function)).0
    } catch let error as MLModelError {
      throw explained(error, url)
    }
  }

  func predict(_ inputs: EngineInputs) throws -> (EngineReply, EnginePayload) {
    try engine.ask(request(inputs), payload: inputs.payload)
  }

  func predict(_ inputs: EngineInputs) async throws -> (EngineReply, EnginePayload) {
    try await engine.ask(request(inputs), payload: inputs.payload)
  }

  private func request(_ inputs: EngineInputs) -> EngineRequest {
    EngineRequest(op: "predict", model: handle, inputs: inputs.arrays)
  }

  private static func request(
    _ op: String, _ url: URL, _ function: String?
  ) throws -> EngineRequest {
    guard url.isFileURL else {
      throw MLModelError(.io, "\(url.absoluteString) is not the URL of a file.")
    }
    if ["mlpackage", "mlmodel"].contains(url.pathExtension) {
      // The engine could run it; Core ML loads compiled models only, and so does this module.
      throw MLModelError(.io, "It is not compiled; compile it with 'fluxvae compile'.")
    }
    return EngineRequest(op: op, path: url.path, function: function)
  }

  private static func explained(_ error: MLModelError, _ url: URL) -> MLModelError {
    MLModelError(
      error.code, "Unable to load model: \(url.path): \(error.localizedDescription)",
      underlying: error)
  }
}
