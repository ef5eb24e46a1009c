/// `manifest.json` of a bundle that `fluxvae export-io` wrote.
public struct Manifest: Codable, Equatable, Sendable {
  /// One array of the bundle.
  public struct Array: Codable, Equatable, Sendable {
    public let name: String
    public let file: String
    public let dtype: ScalarType
    public let shape: [Int]
    public let layout: Layout
    public let sha256: String
  }

  /// The checkpoint that the expected output was computed with.
  public struct Weights: Codable, Equatable, Sendable {
    public let source: String
    public let digest: String
  }

  public static let format = "fluxvae-io"
  public static let version = 1

  public let variant: String
  public let size: String
  public let `case`: String
  public let input: Array
  public let output: Array
  public let weights: Weights
  public let latentSpace: String
  public let limits: [String: Limit]
}
