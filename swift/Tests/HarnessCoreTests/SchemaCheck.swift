import Foundation
import TestSupport

/// A reader of the part of JSON Schema that `docs/harness.schema.json` uses, for tests.
///
/// Python's tests hold reports against the same file with a full validator.
struct SchemaCheck {
  private let root: [String: Any]

  init() throws {
    let file = Repository.root.appendingPathComponent("docs/harness.schema.json")
    let content = try JSONSerialization.jsonObject(with: Data(contentsOf: file))
    root = content as? [String: Any] ?? [:]
  }

  /// What is wrong with a document; nothing when it keeps to the schema.
  func complaints(_ json: Data) throws -> [String] {
    check(try JSONSerialization.jsonObject(with: json), root, at: "report")
  }

  private func check(_ value: Any, _ schema: [String: Any], at place: String) -> [String] {
    if let name = schema["$ref"] as? String { return check(value, definition(name), at: place) }
    if let choices = schema["oneOf"] as? [[String: Any]] {
      let fitting = choices.filter { check(value, $0, at: place).isEmpty }.count
      return fitting == 1 ? [] : ["\(place) fits \(fitting) of its forms"]
    }
    if let allowed = schema["enum"] as? [Any], !allowed.contains(where: { same($0, value) }) {
      return ["\(place) is none of the words allowed"]
    }
    if let constant = schema["const"], !same(constant, value) { return ["\(place) is another"] }
    if let type = schema["type"] {
      let types = type as? [String] ?? [type as? String ?? ""]
      guard types.contains(where: { isOf($0, value) }) else { return ["\(place) is no \(types)"] }
    }
    if let array = value as? [Any], let items = schema["items"] as? [String: Any] {
      return array.enumerated().flatMap { check($1, items, at: "\(place)[\($0)]") }
    }
    if let object = value as? [String: Any] { return check(object, schema, at: place) }
    return []
  }

  private func check(
    _ object: [String: Any], _ schema: [String: Any], at place: String
  ) -> [String] {
    let properties = schema["properties"] as? [String: Any] ?? [:]
    let required = schema["required"] as? [String] ?? []
    let absent = required.filter { object[$0] == nil }.map { "\(place).\($0) is missing" }
    return absent
      + object.flatMap { key, value -> [String] in
        let below = "\(place).\(key)"
        if let own = properties[key] as? [String: Any] { return check(value, own, at: below) }
        if let others = schema["additionalProperties"] as? [String: Any] {
          return check(value, others, at: below)
        }
        return schema["additionalProperties"] as? Bool == false ? ["\(below) is not known"] : []
      }
  }

  private func definition(_ reference: String) -> [String: Any] {
    let name = reference.replacingOccurrences(of: "#/$defs/", with: "")
    return (root["$defs"] as? [String: Any])?[name] as? [String: Any] ?? ["enum": [Any]()]
  }

  private func same(_ a: Any, _ b: Any) -> Bool {
    if a is NSNull || b is NSNull { return a is NSNull && b is NSNull }
    if let a = a as? String { return a == b as? String }
    return (a as? NSNumber) == (b as? NSNumber)
  }

  private func isOf(_ type: String, _ value: Any) -> Bool {
    switch type {
    case "null": value is NSNull
    case "string": value is String
    case "array": value is [Any]
    case "object": value is [String: Any]
    case "boolean": value is Bool
    case "integer": (value as? Double).map { $0 == $0.rounded() } ?? false
    default: value is Double && !(value is String)
    }
  }
}
