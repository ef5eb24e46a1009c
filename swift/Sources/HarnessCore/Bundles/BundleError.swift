import Foundation

/// An I/O bundle that cannot be used, or not with this model.
public enum BundleError: Error, Equatable, Sendable {
  case unreadable(path: String)
  case format(String)
  case version(Int)
  case manifest(String)
  case array(file: String, TensorError)
  case digest(file: String, expected: String, found: String)
  case notFinite(file: String)
  case feature(name: String, role: String, declared: [String])
  case shape(name: String, found: [Int], declared: String)
  case layout(bundle: Layout, model: Layout)
  case variant(bundle: String, model: String)
  case weights(bundle: String, model: String)
  case latentSpace(bundle: String, model: String)
  case noLimit(precision: Precision)
  case bound(precision: String, Limit)

  /// Whether it is a threshold that makes no sense, and not a bundle that is damaged or foreign.
  public var isUsage: Bool {
    if case .bound = self { true } else { false }
  }
}

extension BundleError: LocalizedError {
  /// One sentence: what was expected, what came, what to do next.
  public var errorDescription: String? {
    switch self {
    case .unreadable(let path):
      "\(path) cannot be read: make a bundle with fluxvae export-io"
    case .format(let format):
      "the manifest's format is \(format), expected \(Manifest.format)"
    case .version(let version):
      "the manifest's version is \(version), this harness reads \(Manifest.version)"
    case .manifest(let reason): "manifest.json is not usable: \(reason)"
    case .array(let file, let error):
      "\(file) does not match the manifest: \(error.localizedDescription); it is cut off, or its "
        + "dtype is declared wrongly"
    case .digest(let file, let expected, let found):
      "\(file) was changed: its sha256 is \(found.prefix(12))…, the manifest says "
        + "\(expected.prefix(12))…; export it again"
    case .notFinite(let file):
      "\(file) holds a NaN or an infinity, so that nothing can be measured with it"
    default: mismatch
    }
  }

  /// What bundle and model disagree about.
  private var mismatch: String {
    switch self {
    case .feature(let name, let role, let declared):
      "the model has no \(role) called \(name); it has \(declared.joined(separator: ", "))"
    case .shape(let name, let found, let declared):
      "the bundle's \(name) has the shape \(found), and the model declares \(declared)"
    case .layout(let bundle, let model):
      "the bundle is \(bundle.rawValue) and the model \(model.rawValue): export with "
        + "--layout \(model.rawValue)"
    case .variant(let bundle, let model):
      "the bundle is for \(bundle), and the model is of \(model)"
    case .weights(let bundle, let model):
      "the bundle's weights have the digest \(bundle.prefix(12))…, and the model's "
        + "\(model.prefix(12))…: export with the weights that the model was converted from"
    case .latentSpace(let bundle, let model):
      "the bundle's latent is of the space \(bundle), and the model wants \(model)"
    case .noLimit(let precision):
      "the manifest has no limit for \(precision.rawValue) models"
    case .bound(let precision, let limit):
      "the manifest's limit for \(precision) is \(limit.metric.rawValue) \(limit.bound), expected "
        + "a bound above 0 and up to \(limit.metric.largestBound): any other passes everything or "
        + "nothing"
    default: "the bundle cannot be used"
    }
  }
}
