internal import FluxVAESupport
import Foundation

extension Manifest {
  private struct Header: Decodable {
    let format: String
    let version: Int
  }

  /// The numbers of a manifest alone, to find the one that does not fit.
  private struct Numbers: Decodable {
    struct Array: Decodable {
      let shape: [JSONNumber<Int>]
    }

    struct Limit: Decodable {
      let bound: JSONNumber<Double>
    }

    let version: JSONNumber<Int>
    let input: Array
    let output: Array
    let limits: [String: Limit]
  }

  /// Reads the text of a manifest and checks that it is consistent in itself.
  ///
  /// - Throws: `BundleError.manifest` saying what is wrong, or `.version`.
  public init(parsing data: Data) throws(BundleError) {
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    do {
      let header = try decoder.decode(Header.self, from: data)
      guard header.format == Self.format else { throw BundleError.format(header.format) }
      guard header.version == Self.version else { throw BundleError.version(header.version) }
      self = try decoder.decode(Manifest.self, from: data)
    } catch let error as BundleError {
      throw error
    } catch let error as DecodingError {
      throw .manifest(Self.misfit(in: data) ?? Self.sentence(error))
    } catch {
      throw .manifest("it cannot be read: \(error.localizedDescription)")
    }
    try check()
  }

  /// An encoder's input, a decoder's output.
  private var image: Array { input.name == "image" ? input : output }

  private func check() throws(BundleError) {
    for array in [input, output] {
      guard array.dtype == .float16 || array.dtype == .float32 else {
        throw .manifest("the dtype of \(array.name) is \(array.dtype.rawValue), not a float")
      }
      // A latent of tokens has three.
      guard array.shape.count == 4 || (array.shape.count == 3 && array.name != image.name),
        array.shape.allSatisfy({ $0 > 0 }),
        (try? Tensor.byteCount(dtype: array.dtype, shape: array.shape)) != nil
      else { throw .manifest("the shape of \(array.name) is \(array.shape), not four extents") }
      guard !array.file.isEmpty, !array.file.hasPrefix("."), !array.file.contains("/") else {
        throw .manifest("the file of \(array.name) is \(array.file), not a name inside the folder")
      }
      guard array.sha256.count == 64, array.sha256.allSatisfy(\.isLowercaseHexDigit) else {
        throw .manifest("the sha256 of \(array.name) is no digest of 64 lower-case digits")
      }
    }
    guard let pixels = ImageSize(size), pixels == image.pixels else {
      throw .manifest(
        "its size is \(size), and \(image.name) has the shape \(image.shape) in the layout "
          + image.layout.rawValue)
    }
    for (precision, limit) in limits.sorted(by: { $0.key < $1.key }) where !limit.isSensible {
      throw .bound(precision: precision, limit)
    }
  }

  /// What is wrong with the first number that does not fit, if one does not.
  private static func misfit(in data: Data) -> String? {
    do {
      _ = try JSONDecoder().decode(Numbers.self, from: data)
    } catch DecodingError.dataCorrupted(let context) where !context.codingPath.isEmpty {
      return "\(place(context.codingPath)) is out of range: \(context.debugDescription)"
    } catch {}
    return nil
  }

  private static func sentence(_ error: DecodingError) -> String {
    switch error {
    case .keyNotFound(let key, let context):
      "\(place(context.codingPath + [key])) is missing"
    case .typeMismatch(_, let context), .valueNotFound(_, let context):
      "\(place(context.codingPath)) is of the wrong type"
    case .dataCorrupted(let context) where !context.codingPath.isEmpty:
      "\(place(context.codingPath)) has a value that is not known"
    default: "it is not valid JSON, or a number in it is NaN, infinite or too large"
    }
  }

  private static func place(_ path: [any CodingKey]) -> String {
    path.isEmpty ? "it" : path.map(\.stringValue).joined(separator: ".")
  }
}

extension Manifest.Array {
  /// Height and width of the array.
  var pixels: ImageSize {
    ImageSize(height: shape[layout.spatial.height], width: shape[layout.spatial.width])
  }
}

extension Character {
  fileprivate var isLowercaseHexDigit: Bool { "0123456789abcdef".contains(self) }
}
