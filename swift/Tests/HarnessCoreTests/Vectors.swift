import Foundation
import TestSupport

@testable import HarnessCore

/// `tests/vectors/harness.json`: numbers from numpy and hashlib, made by
/// `scripts/harness_vectors.py`.
struct Vectors: Decodable {
  struct Times: Decodable {
    let samples: [Double]
    let fractions: [Double]
    let percentiles: [String: Double]
    let quantiles: [Double]
    let mean: Double
    let stddev: Double
  }

  struct Comparison: Decodable {
    let shape: [Int]
    let candidate: [Number]
    let reference: [Float]
    let expected: Metrics
  }

  struct Digest: Decodable {
    let length: Int
    let hex: String
  }

  /// A number, or one of the words that stand for what JSON cannot say.
  struct Number: Decodable {
    let value: Double

    init(from decoder: any Decoder) throws {
      let container = try decoder.singleValueContainer()
      if let number = try? container.decode(Double.self) {
        value = number
      } else {
        value = try container.decode(String.self) == "nan" ? .nan : .infinity
      }
    }
  }

  let latency: [Times]
  let metrics: [Comparison]
  let sha256: [Digest]

  static func load() throws -> Vectors {
    let file = Repository.root.appendingPathComponent("tests/vectors/harness.json")
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    return try decoder.decode(Vectors.self, from: Data(contentsOf: file))
  }
}
