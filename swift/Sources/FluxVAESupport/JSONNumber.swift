/// A number of a JSON text.
///
/// `JSONDecoder` reports a number that does not fit as damage of the whole text, without the field:
/// swift-foundation 6.3 leaves the coding path out. The error thrown here has it.
package struct JSONNumber<Value: JSONNumberValue>: Decodable {
  package let value: Value

  package init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    do {
      value = try container.decode(Value.self)
    } catch let error as DecodingError where !error.isOfData {
      throw error
    } catch {
      throw DecodingError.dataCorrupted(
        DecodingError.Context(
          codingPath: decoder.codingPath, debugDescription: "expected \(Value.range)"))
    }
  }
}

extension DecodingError {
  fileprivate var isOfData: Bool {
    guard case .dataCorrupted = self else { return false }
    return true
  }
}

/// A type of numbers, with the range that it takes in words.
package protocol JSONNumberValue: Decodable {
  static var range: String { get }
}

extension Int: JSONNumberValue {
  package static var range: String { "an integer from \(min) to \(max)" }
}

extension JSONNumberValue where Self: BinaryFloatingPoint {
  package static var range: String {
    "a number from \(-greatestFiniteMagnitude) to \(greatestFiniteMagnitude)"
  }
}

extension Float: JSONNumberValue {}
extension Double: JSONNumberValue {}

extension KeyedDecodingContainer {
  package func number<Value: JSONNumberValue>(_ key: Key) throws -> Value {
    try decode(JSONNumber<Value>.self, forKey: key).value
  }
}
