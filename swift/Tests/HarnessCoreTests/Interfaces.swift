import Foundation

@testable import HarnessCore

/// Declarations as Core ML would give them, made up for tests.
enum Interfaces {
  static func feature(
    _ name: String, _ shape: [Int], kind: Feature.Kind = .multiArray, dtype: ScalarType? = .float16,
    enumerated: [[Int]]? = nil, ranges: [[Int?]]? = nil
  ) -> Feature {
    Feature(
      name: name, kind: kind, dtype: dtype, shape: shape,
      flexibility: enumerated != nil ? .enumerated : ranges != nil ? .range : .fixed,
      shapes: enumerated ?? (ranges != nil || shape.isEmpty ? [] : [shape]), ranges: ranges)
  }

  /// A decoder that takes `BundleFolder`'s arrays, with metadata as fluxvae/artifact/save.py writes it.
  static func decoder(
    metadata: [String: String] = metadata(), latent: Feature? = nil, image: Feature? = nil
  ) -> Interface {
    Interface(
      inputs: [latent ?? feature("latent", [1, 4, 2, 3])],
      outputs: [image ?? feature("image", [1, 3, 16, 24])], metadata: metadata)
  }

  static func metadata(
    variant: String = "flux2", precision: String = "float16", layout: String = "nchw",
    shapes: String = "fixed", space: String = "flux2-space", digest: String = BundleFolder.weights,
    range: String = ""
  ) -> [String: String] {
    let recipe = """
      {"variant": "\(variant)", "precision": "\(precision)", "io_precision": "auto",
       "layout": "\(layout)", "nhwc_model": false, "sizes": ["16x24", "64"],
       "shapes": "\(shapes)", "output": "tensor", "format": "mlprogram", "target": null}
      """
    return [
      "com.github.fluxvae.format": "1",
      "com.github.fluxvae.recipe": recipe,
      "com.github.fluxvae.weights_digest": digest,
      "com.github.fluxvae.latent_contract":
        "{\"space\": \"\(space)\", \"wants\": \"…\", \"channels\": 4, \"scale\": 8\(range)}",
    ]
  }
}
