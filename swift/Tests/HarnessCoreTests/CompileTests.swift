import Foundation
import Testing

@testable import HarnessCore

@Suite("A compiled model gets its name in one step")
struct CompileTests {
  let folder: URL

  init() throws {
    folder = FileManager.default.temporaryDirectory
      .appendingPathComponent("fluxvae-compile-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
  }

  @Test("into a folder that is not there yet, and over what is there")
  func publish() throws {
    defer { try? FileManager.default.removeItem(at: folder) }
    let target = folder.appendingPathComponent("deep/er/Model.mlmodelc")
    for content in ["first", "second"] {
      try Compile.publish(try made(content), to: target)
      let file = target.appendingPathComponent("model.mil")
      #expect(try String(contentsOf: file, encoding: .utf8) == content)
    }
    let beside = try FileManager.default.contentsOfDirectory(
      atPath: target.deletingLastPathComponent().path)
    #expect(beside == ["Model.mlmodelc"])
  }

  @Test("an existing target and a missing package are refused before anything is done")
  func refused() async throws {
    defer { try? FileManager.default.removeItem(at: folder) }
    let package = try made("p")
    let missing = folder.appendingPathComponent("no.mlpackage")
    await #expect(throws: ModelFault.missing(path: missing.path)) {
      try await Compile.run(missing, to: package, overwrite: true)
    }
    await #expect(throws: ModelFault.exists(path: package.path)) {
      try await Compile.run(package, to: package, overwrite: false)
    }
  }

  private func made(_ content: String) throws -> URL {
    let model = folder.appendingPathComponent(UUID().uuidString)
    try FileManager.default.createDirectory(at: model, withIntermediateDirectories: true)
    try Data(content.utf8).write(to: model.appendingPathComponent("model.mil"))
    return model
  }
}
