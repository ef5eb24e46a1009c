/// A request to `python -m fluxvae.mil.serve`; its documentation describes the protocol.
struct EngineRequest: Encodable, Sendable {
  var id = 0
  let op: String
  var path: String?
  var function: String?
  var model: Int?
  var inputs: [EngineArray]?
}

/// Name, NumPy element type and shape of an array in a frame's payload.
struct EngineArray: Codable, Equatable, Sendable {
  let name: String
  let dtype: String
  let shape: [Int]
}

/// The header of a reply. Which fields are there depends on the request.
struct EngineReply: Decodable, Sendable {
  struct Refusal: Decodable, Sendable {
    let kind: String
    let message: String
  }

  let id: Int?
  let ok: Bool
  let error: Refusal?
  let model: Int?
  let functions: [String]?
  let description: EngineDescription?
  let outputs: [EngineArray]?
}

/// A model's description as the engine sends it.
struct EngineDescription: Decodable, Sendable {
  struct Feature: Decodable, Sendable {
    let name: String
    let kind: String
    let dtype: String
    let shape: [Int]
    let shapes: [[Int]]
    /// Lowest and highest size of each dimension; -1 as the highest means there is none.
    let ranges: [[Int]]
    let color: String?
  }

  struct Metadata: Decodable, Sendable {
    let author: String
    let license: String
    let version: String
    let description: String
    let user: [String: String]
  }

  let inputs: [Feature]
  let outputs: [Feature]
  let metadata: Metadata
}

extension EngineReply.Refusal {
  /// The refusal as Core ML's kind of error.
  var modelError: MLModelError {
    switch kind {
    case "io": MLModelError(.io, message)
    case "input": MLModelError(.featureType, message)
    default: MLModelError(.generic, message)
    }
  }
}
