/// What the model was fed.
public struct InputReport: Codable, Equatable, Sendable {
  /// Where the numbers came from.
  public enum Source: String, Codable, Sendable {
    case io
    case generated
  }

  public let source: Source
  @Nullable public var path: String?
  @Nullable public var `case`: String?
  @Nullable public var seed: Int?
  public let shape: [Int]
}
