import Foundation
import TestSupport
import Testing

@testable import FluxVAE

/// Models that tests/make_swift_models.py makes, once for a run of the tests.
///
/// It takes a Python that has fluxvae, see `EnginePython`.
struct DemoModels: Sendable {
  struct Case: Decodable, Sendable {
    struct Size: Decodable, Sendable {
      let height: Int
      let width: Int
      let latent: String
      let image: String
    }

    let name: String
    let path: String
    let space: String
    let channels: Int
    let layout: TensorLayout
    let sizes: [Size]
  }

  static let isPossible = EnginePython.problem == nil
  /// Why a test with models is skipped.
  static let reason = Comment(rawValue: EnginePython.problem ?? "")
  private static let made = Result { try DemoModels() }

  private let cases: [String: Case]

  private init() throws {
    let folder = try EnginePython.make(["-m", "tests.make_swift_models"])
    let list = try Data(contentsOf: folder.appending(path: "cases.json"))
    let all = try JSONDecoder().decode([Case].self, from: list)
    cases = Dictionary(uniqueKeysWithValues: all.map { ($0.name, $0) })
  }

  /// The model of this name.
  static func model(_ name: String) throws -> Case {
    try #require(try made.get().cases[name])
  }
}

extension DemoModels.Case {
  var url: URL { URL(filePath: path) }

  var latentSpace: LatentSpace { LatentSpace(rawValue: space) }

  /// A decoder that is not loaded, for the model's own latents unless told otherwise.
  func decoder(
    for space: LatentSpace? = nil,
    _ configuration: LatentDecoder.Configuration = .init()
  ) -> LatentDecoder {
    LatentDecoder(modelAt: url, for: space ?? latentSpace, configuration: configuration)
  }

  func latent(_ size: Size) throws -> Latent {
    try Latent(floats(size.latent), height: size.height / 8, width: size.width / 8)
  }

  /// The numbers of a raw little-endian file, NCHW.
  func floats(_ file: String) throws -> [Float] {
    let bytes = try Data(contentsOf: url.deletingLastPathComponent().appending(path: file))
    return bytes.withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
  }
}
