import Foundation

@testable import HarnessCore

/// A bundle on disk that goes away with this object; tests spoil it in one way each.
final class BundleFolder {
  let url: URL
  var manifest: [String: Any]

  /// A good bundle: 4 latent channels of 2 x 3, an image of 16 x 24.
  init(dtype: ScalarType = .float32, layout: Layout = .nchw) throws {
    url = FileManager.default.temporaryDirectory
      .appendingPathComponent("fluxvae-io-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    manifest = [
      "format": "fluxvae-io", "version": 1, "variant": "flux2", "size": "16x24", "case": "normal",
      "source": ["kind": "normal", "seed": 0, "generator": "numpy"],
      "weights": ["source": "demo", "digest": Self.weights], "latent_space": "flux2-space",
      "limits": [
        "float32": ["metric": "max_abs", "bound": 2e-5],
        "float16": ["metric": "psnr_db", "bound": 60.0],
      ],
      "versions": ["fluxvae": "0"],
    ]
    let nhwc = layout == .nhwc
    try add("input", named: "latent", nhwc ? [1, 2, 3, 4] : [1, 4, 2, 3], dtype, layout)
    try add("output", named: "image", nhwc ? [1, 16, 24, 3] : [1, 3, 16, 24], dtype, layout)
  }

  deinit { try? FileManager.default.removeItem(at: url) }

  static let weights = String(repeating: "ab", count: 32)

  /// Writes the manifest as it stands and reads the bundle.
  func read() throws -> IOBundle {
    let data = try JSONSerialization.data(withJSONObject: manifest)
    try data.write(to: url.appendingPathComponent("manifest.json"))
    return try IOBundle(folder: url)
  }

  /// Changes one entry of one array's description.
  func change(_ array: String, _ key: String, to value: Any) {
    var entry = manifest[array] as? [String: Any] ?? [:]
    entry[key] = value
    manifest[array] = entry
  }

  func write(_ bytes: [UInt8], to file: String) throws {
    try Data(bytes).write(to: url.appendingPathComponent(file))
  }

  func bytes(of file: String) throws -> [UInt8] {
    [UInt8](try Data(contentsOf: url.appendingPathComponent(file)))
  }

  private func add(
    _ key: String, named name: String, _ shape: [Int], _ dtype: ScalarType, _ layout: Layout
  ) throws {
    let count = shape.reduce(1, *)
    let values = (0..<count).map { Float($0 % 17) / 16 }
    let tensor = try Tensor(values, shape: shape, dtype: dtype)
    try write(tensor.bytes, to: "\(key).bin")
    manifest[key] = [
      "name": name, "file": "\(key).bin", "dtype": dtype.rawValue, "shape": shape,
      "layout": layout.rawValue, "sha256": SHA256.hexDigest(tensor.bytes),
    ]
  }
}
