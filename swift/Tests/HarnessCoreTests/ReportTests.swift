import Foundation
import Testing

@testable import HarnessCore

@Suite("Reports as JSON")
struct ReportTests {
  static let spoilers: [(String, String)] = [
    ("\"version\" : 2", "\"version\" : 1"), ("\"arch\"", "\"arc\""),
    ("\"cores\" : 8", "\"cores\" : 8.5"), ("\"seed\" : 0", "\"seed\" : \"0\""),
    ("\"backend\" : \"coreml\"", "\"backend\" : \"magic\""), ("\"p99\"", "\"p98\""),
  ]

  @Test("what is written is read back the same", arguments: Reports.all)
  func roundTrip(report: Report) throws {
    let json = try report.json()
    #expect(try Report(json: json) == report)
    #expect(try Report(json: json).json() == json)
  }

  @Test("every report keeps to docs/harness.schema.json", arguments: Reports.all)
  func schema(report: Report) throws {
    #expect(try SchemaCheck().complaints(report.json()) == [])
  }

  @Test("the schema check finds what is wrong", arguments: spoilers)
  func schemaCheck(found: String, replacement: String) throws {
    let text = String(decoding: try Reports.bench.json(), as: UTF8.self)
    let spoilt = text.replacingOccurrences(of: found, with: replacement)
    #expect(spoilt != text)
    #expect(try !SchemaCheck().complaints(Data(spoilt.utf8)).isEmpty)
  }

  @Test("keys are sorted, unknown values are null, metadata keys are left alone")
  func text() throws {
    let text = String(decoding: try Reports.validation.json(), as: UTF8.self)
    let top = text.split(separator: "\n").filter { $0.hasPrefix("  \"") }
    let keys = top.map { $0.prefix { $0 != ":" } }
    #expect(keys == keys.sorted())
    #expect(keys.count == 12)
    #expect(text.contains("\"runs\" : null"))
    #expect(text.contains("\"psnr_db\" : null"))
    #expect(text.contains("\"aKeyOfSome_One\" : \"kept as it is\""))
    #expect(text.contains("\"com.github.fluxvae.weights_digest\""))
  }
}
