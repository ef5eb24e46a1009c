import Foundation
import Testing

@testable import HarnessCore

@Suite("I/O bundles on disk")
struct IOBundleTests {
  /// Of a bundle of which dtype, which entry is changed, to what, and what the error says.
  static let inconsistencies: [(ScalarType, String, String, String, [String])] = [
    (.float32, "input", "file", "../input.bin", ["not a name inside the folder"]),
    (.float32, "input", "file", "/etc/passwd", ["not a name inside the folder"]),
    (.float32, "input", "dtype", "int32", ["not a float"]),
    (.float32, "input", "dtype", "bfloat16", ["input.dtype has a value that is not known"]),
    (
      .float16, "output", "dtype", "float32",
      [
        "output.bin does not match the manifest",
        "float32 takes 4608 bytes, and there are 2304",
      ]
    ),
    (.float32, "output", "layout", "hwc", ["output.layout has a value that is not known"]),
    (
      .float32, "output", "layout", "nhwc",
      ["its size is 16x24", "[1, 3, 16, 24] in the layout nhwc"]
    ),
    (.float32, "output", "sha256", "ABC", ["no digest"]),
  ]

  @Test("a good bundle gives both arrays", arguments: [ScalarType.float16, .float32])
  func good(dtype: ScalarType) throws {
    let bundle = try BundleFolder(dtype: dtype, layout: .nhwc).read()
    #expect(bundle.input.shape == [1, 2, 3, 4])
    #expect(bundle.output.dtype == dtype)
    #expect(bundle.output.doubles().prefix(3) == [0, 1 / 16, 2 / 16])
    #expect(bundle.manifest.limits["float16"] == Limit(metric: .psnrDb, bound: 60))
    #expect(bundle.manifest.latentSpace == "flux2-space")
  }

  @Test("a truncated array is refused with both lengths")
  func truncated() throws {
    let folder = try BundleFolder()
    try folder.write(Array(try folder.bytes(of: "output.bin").dropLast(5)), to: "output.bin")
    let error = try #require(throws: BundleError.self) { try folder.read() }
    let lengths = TensorError.length(
      shape: [1, 3, 16, 24], dtype: .float32, expected: 4608, found: 4603)
    #expect(error == .array(file: "output.bin", lengths))
    #expect(error.localizedDescription.contains("4608 bytes, and there are 4603"))
  }

  @Test("a changed byte is found by the digest")
  func changed() throws {
    let folder = try BundleFolder()
    var bytes = try folder.bytes(of: "input.bin")
    bytes[7] ^= 1
    try folder.write(bytes, to: "input.bin")
    let error = try #require(throws: BundleError.self) { try folder.read() }
    guard case .digest(let file, _, let found) = error else {
      Issue.record("another error: \(error)")
      return
    }
    #expect(file == "input.bin")
    #expect(found == SHA256.hexDigest(bytes))
  }

  @Test("a reference with a NaN measures nothing")
  func notFinite() throws {
    let folder = try BundleFolder()
    var bytes = try folder.bytes(of: "output.bin")
    bytes.replaceSubrange(0..<4, with: [0, 0, 0xC0, 0x7F])
    try folder.write(bytes, to: "output.bin")
    folder.change("output", "sha256", to: SHA256.hexDigest(bytes))
    #expect(throws: BundleError.notFinite(file: "output.bin")) { try folder.read() }
  }

  @Test("a missing array and a missing folder are named")
  func missing() throws {
    let folder = try BundleFolder()
    let file = folder.url.appendingPathComponent("input.bin")
    try FileManager.default.removeItem(at: file)
    #expect(throws: BundleError.unreadable(path: file.path)) { try folder.read() }
    let nowhere = URL(fileURLWithPath: "/nowhere/at/all")
    #expect(throws: BundleError.unreadable(path: "/nowhere/at/all/manifest.json")) {
      try IOBundle(folder: nowhere)
    }
  }

  @Test("a manifest that is not consistent says where", arguments: inconsistencies)
  func inconsistent(
    dtype: ScalarType, array: String, key: String, value: String, says: [String]
  ) throws {
    let folder = try BundleFolder(dtype: dtype)
    folder.change(array, key, to: value)
    let error = try #require(throws: BundleError.self) { try folder.read() }
    for words in says { #expect(error.localizedDescription.contains(words)) }
  }

  @Test(
    "shapes that are none are refused",
    arguments: [
      [1, 3, 16], [1, 3, 0, 24], [1, 3, -16, 24], [4_000_000_000, 4_000_000_000, 16, 24],
    ])
  func shapes(shape: [Int]) throws {
    let folder = try BundleFolder()
    folder.change("output", "shape", to: shape)
    let error = try #require(throws: BundleError.self) { try folder.read() }
    #expect(error.localizedDescription.contains("not four extents"))
  }

  @Test("other formats, other versions and missing entries are told apart")
  func headers() throws {
    let folder = try BundleFolder()
    folder.manifest["version"] = 2
    #expect(throws: BundleError.version(2)) { try folder.read() }
    folder.manifest["version"] = 1
    folder.manifest["weights"] = nil
    #expect(throws: BundleError.manifest("weights is missing")) { try folder.read() }
    folder.manifest["format"] = "other"
    #expect(throws: BundleError.format("other")) { try folder.read() }
    try folder.write(Array("[1, 2".utf8), to: "manifest.json")
    let error = try #require(throws: BundleError.self) { try IOBundle(folder: folder.url) }
    #expect(error.localizedDescription.contains("not valid JSON"))
  }

  @Test(
    "a bound that passes everything or nothing is wrong usage",
    arguments: [
      ("psnr_db", "-1e9"), ("psnr_db", "0"), ("psnr_db", "200.5"), ("psnr_db", "1e300"),
      ("max_abs", "-1e-3"), ("max_abs", "0"), ("max_abs", "2.5"), ("max_abs", "1e30"),
    ])
  func bounds(metric: String, bound: String) throws {
    let folder = try BundleFolder()
    let number = try #require(Double(bound))
    folder.manifest["limits"] = ["float16": ["metric": metric, "bound": number]]
    let error = try #require(throws: BundleError.self) { try folder.read() }
    #expect(error.isUsage)
    #expect(error.localizedDescription.contains("limit for float16 is \(metric)"))
  }

  @Test("a bound that no number holds is refused", arguments: ["NaN", "Infinity"])
  func notANumber(bound: String) throws {
    let folder = try BundleFolder()
    _ = try folder.read()
    let text = String(decoding: try folder.bytes(of: "manifest.json"), as: UTF8.self)
    let spoilt = text.replacingOccurrences(of: "\"bound\":60", with: "\"bound\":\(bound)")
    #expect(spoilt != text)
    try folder.write(Array(spoilt.utf8), to: "manifest.json")
    let error = try #require(throws: BundleError.self) { try IOBundle(folder: folder.url) }
    #expect(error.localizedDescription.contains("a number in it is NaN, infinite or too large"))
  }

  @Test(
    "a number that does not fit is named, with its range",
    arguments: [
      (#""version":1"#, #""version":1e30"#, "version is out of range: expected an integer"),
      (",16,24]", ",16,99999999999999999999]", "output.shape.Index 3 is out of range"),
      (#""bound":60"#, #""bound":1e999"#, "bound is out of range: expected a number from -1.79"),
    ])
  func misfits(text: String, instead: String, says: String) throws {
    let folder = try BundleFolder()
    let data = try JSONSerialization.data(withJSONObject: folder.manifest)
    let manifest = String(decoding: data, as: UTF8.self)
    try #require(manifest.contains(text), "\(manifest)")
    try folder.write(
      Array(manifest.replacingOccurrences(of: text, with: instead).utf8), to: "manifest.json")
    let error = try #require(throws: BundleError.self) { try IOBundle(folder: folder.url) }
    #expect(error.localizedDescription.contains(says))
  }
}
