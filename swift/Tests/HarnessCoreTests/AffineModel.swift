import Foundation
import Testing

@testable import HarnessCore

/// A compiled model, y = 2x + 1, that make_model.py makes once for all tests.
enum AffineModel {
  struct Failure: Error {
    let log: String
  }

  static let isPossible = python != nil
  static let reason: Comment =
    "FLUXVAE_PYTHON does not name a Python with fluxvae, which makes and runs the model"
  private static let python = ProcessInfo.processInfo.environment["FLUXVAE_PYTHON"]
  private static let shape = [1, 2, 3, 5]

  static func url() throws -> URL { try made.get() }

  /// A bundle that the model passes; call `read()` to write its manifest.
  static func bundle() throws -> BundleFolder {
    let folder = try BundleFolder()
    folder.manifest["size"] = "3x5"
    let values = (0..<30).map { Float($0) }
    for (key, name, numbers) in [
      ("input", "x", values), ("output", "y", values.map { 2 * $0 + 1 }),
    ] {
      let tensor = try Tensor(numbers, shape: shape, dtype: .float32)
      try folder.write(tensor.bytes, to: "\(key).bin")
      folder.change(key, "name", to: name)
      folder.change(key, "shape", to: shape)
      folder.change(key, "sha256", to: SHA256.hexDigest(tensor.bytes))
    }
    return folder
  }

  private static let folder = FileManager.default.temporaryDirectory
    .appendingPathComponent("fluxvae-affine-\(UUID().uuidString)")

  private static let made = Result { () throws -> URL in
    atexit { try? FileManager.default.removeItem(at: AffineModel.folder) }
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    let process = Process()
    process.executableURL = URL(fileURLWithPath: python ?? "")
    let script = Repository.root.appendingPathComponent(
      "swift/Tests/HarnessCoreTests/make_model.py")
    process.arguments = [script.path, folder.path]
    let errors = Pipe()
    process.standardError = errors
    try process.run()
    let log = errors.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    guard process.terminationStatus == 0 else {
      throw Failure(log: String(decoding: log, as: UTF8.self))
    }
    return folder.appendingPathComponent("affine.mlmodelc")
  }
}
