import Foundation
import TestSupport
import Testing

@testable import HarnessCore

/// A compiled model, y = 2x + 1, that make_models.py makes once for all tests.
enum AffineModel {
  static let isPossible = EnginePython.problem == nil
  static let reason = Comment(rawValue: EnginePython.problem ?? "")
  private static let shape = [1, 2, 3, 5]

  static func url() throws -> URL {
    try EnginePython.affineModels.get().appending(path: "fixed32.mlmodelc")
  }

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
}
