import Foundation

/// The domain of Core ML's errors.
public let MLModelErrorDomain = "com.apple.CoreML"

/// An error of Core ML: a code and, in `userInfo`, a sentence under `NSLocalizedDescriptionKey`.
///
/// Apple's is an imported NSError; a thrown one is caught with `error as? MLModelError` on both
/// sides. `error as NSError` is not possible on Linux: use `code`, `userInfo`, or
/// `localizedDescription`.
public struct MLModelError: CustomNSError, LocalizedError, Equatable, Hashable, @unchecked Sendable
{
  /// The kind of failure.
  public struct Code: RawRepresentable, Hashable, Sendable {
    public let rawValue: Int

    public init?(rawValue: Int) { self.rawValue = rawValue }
    private init(_ value: Int) { rawValue = value }

    public static let generic = Code(0)
    public static let featureType = Code(1)
    public static let io = Code(3)
    public static let customLayer = Code(4)
    public static let customModel = Code(5)
    public static let update = Code(6)
    public static let parameters = Code(7)
    public static let modelDecryptionKeyFetch = Code(8)
    public static let modelDecryption = Code(9)
    public static let modelCollection = Code(10)
    public static let predictionCancelled = Code(11)

    /// Lets `catch MLModelError.io` match.
    public static func ~= (match: Code, error: any Error) -> Bool {
      (error as? MLModelError)?.code == match
    }
  }

  public let code: Code
  // Values are written once, here; those this module puts in are strings and errors.
  public let userInfo: [String: Any]

  public init(_ code: Code, userInfo: [String: Any] = [:]) {
    self.code = code
    self.userInfo = userInfo
  }

  public static var errorDomain: String { MLModelErrorDomain }
  public var errorCode: Int { code.rawValue }
  public var errorUserInfo: [String: Any] { userInfo }
  public var errorDescription: String? { userInfo[NSLocalizedDescriptionKey] as? String }
  public var localizedDescription: String {
    errorDescription
      ?? "The operation couldn’t be completed. (\(MLModelErrorDomain) error \(code.rawValue).)"
  }

  public static var generic: Code { .generic }
  public static var featureType: Code { .featureType }
  public static var io: Code { .io }
  public static var customLayer: Code { .customLayer }
  public static var customModel: Code { .customModel }
  public static var update: Code { .update }
  public static var parameters: Code { .parameters }
  public static var modelDecryptionKeyFetch: Code { .modelDecryptionKeyFetch }
  public static var modelDecryption: Code { .modelDecryption }
  public static var modelCollection: Code { .modelCollection }
  public static var predictionCancelled: Code { .predictionCancelled }

  public static func == (left: MLModelError, right: MLModelError) -> Bool {
    left.code == right.code && left.errorDescription == right.errorDescription
  }

  public func hash(into hasher: inout Hasher) {
    hasher.combine(code)
    hasher.combine(errorDescription)
  }
}

extension MLModelError {
  /// An error with a sentence, and the error below it when there is one.
  init(_ code: Code, _ sentence: String, underlying: MLModelError? = nil) {
    var userInfo: [String: Any] = [NSLocalizedDescriptionKey: sentence]
    if let underlying { userInfo[NSUnderlyingErrorKey] = underlying }
    self.init(code, userInfo: userInfo)
  }
}
