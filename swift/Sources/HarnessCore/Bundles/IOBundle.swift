import Foundation

/// An input and the output expected for it, read from a folder and held against its manifest.
public struct IOBundle: Equatable, Sendable {
  public let path: String
  public let manifest: Manifest
  public let input: Tensor
  public let output: Tensor

  /// Reads `manifest.json` and both arrays.
  ///
  /// - Throws: `BundleError` when a file is missing, is not as long as its shape and dtype need,
  ///   does not have its digest, or when an array holds a NaN or an infinity.
  public init(folder: URL) throws(BundleError) {
    path = folder.path
    manifest = try Manifest(parsing: Self.read(folder.appendingPathComponent("manifest.json")))
    input = try Self.tensor(manifest.input, in: folder)
    output = try Self.tensor(manifest.output, in: folder)
  }

  private static func tensor(
    _ array: Manifest.Array, in folder: URL
  ) throws(BundleError) -> Tensor {
    let data = try read(folder.appendingPathComponent(array.file))
    let tensor: Tensor
    do {
      tensor = try Tensor(dtype: array.dtype, shape: array.shape, bytes: [UInt8](data))
    } catch {
      throw .array(file: array.file, error)
    }
    let digest = SHA256.hexDigest(tensor.bytes)
    guard digest == array.sha256 else {
      throw .digest(file: array.file, expected: array.sha256, found: digest)
    }
    guard tensor.doubles().allSatisfy(\.isFinite) else { throw .notFinite(file: array.file) }
    return tensor
  }

  private static func read(_ file: URL) throws(BundleError) -> Data {
    do {
      return try Data(contentsOf: file, options: .mappedIfSafe)
    } catch {
      throw .unreadable(path: file.path)
    }
  }
}
