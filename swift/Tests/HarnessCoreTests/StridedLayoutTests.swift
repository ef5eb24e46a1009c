import FluxVAESupport
import Testing

@testable import HarnessCore

@Suite("Strided reads against a naive reader")
struct StridedLayoutTests {
  /// Shape and strides in scalars, and the bytes that one copy should move for 2-byte scalars.
  struct Case: Sendable, CustomTestStringConvertible {
    let testDescription: String
    let shape: [Int]
    let strides: [Int]
    let run: Int

    init(_ name: String, _ shape: [Int], _ strides: [Int], run: Int) {
      (testDescription, self.shape, self.strides, self.run) = (name, shape, strides, run)
    }
  }

  static let cases = [
    Case("dense", [1, 3, 4, 5], [60, 20, 5, 1], run: 120),
    Case("dense, odd stride of the axis of one", [1, 3, 4, 5], [7, 20, 5, 1], run: 120),
    Case("rows padded to 32 scalars", [1, 3, 4, 5], [384, 128, 32, 1], run: 10),
    Case("rows and planes padded", [1, 3, 4, 5], [999, 200, 32, 1], run: 10),
    Case("planes padded, rows dense", [2, 3, 4, 5], [96, 32, 5, 1], run: 40),
    Case("images padded, planes dense", [2, 3, 4, 5], [64, 20, 5, 1], run: 120),
    Case("NHWC, three channels padded to 32", [1, 4, 5, 3], [640, 160, 32, 1], run: 6),
    Case("NHWC seen through NCHW", [1, 3, 4, 5], [60, 1, 15, 3], run: 2),
    Case("every other scalar", [2, 3, 4], [24, 8, 2], run: 2),
    Case("a row repeated", [3, 4], [0, 1], run: 8),
    Case("one scalar", [1, 1], [5, 9], run: 2),
    Case("no axes", [], [], run: 2),
    Case("nothing", [2, 0, 3], [9, 3, 1], run: 6),
  ]

  @Test("every kind of padding, in every width", arguments: cases, [2, 4, 8])
  func gather(_ example: Case, size: Int) throws {
    let layout = try StridedLayout(example.shape, strides: example.strides, scalarSize: size)
    let storage = (0..<layout.extent).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ $0 >> 8) }
    var dense = [UInt8](repeating: 0, count: layout.denseByteCount)
    try storage.withUnsafeBytes { source in
      try dense.withUnsafeMutableBytes { try layout.gather(from: source, into: $0) }
    }
    #expect(dense == naive(storage, example, size))
    if size == 2, !example.shape.contains(0) { #expect(layout.run == example.run) }
  }

  @Test("writing is the inverse of reading and leaves the padding alone", arguments: cases, [2, 4])
  func scatter(_ example: Case, size: Int) throws {
    let layout = try StridedLayout(example.shape, strides: example.strides, scalarSize: size)
    guard !example.strides.contains(0) else { return }  // several elements in one place
    let dense = (0..<layout.denseByteCount).map { UInt8(truncatingIfNeeded: $0 &* 13 &+ 1) }
    var storage = [UInt8](repeating: 0xEE, count: layout.extent + 8)
    try dense.withUnsafeBytes { source in
      try storage.withUnsafeMutableBytes { try layout.scatter(from: source, into: $0) }
    }
    #expect(naive(storage, example, size) == dense)
    var touched = Set<Int>()
    for place in places(example) { touched.formUnion(place * size..<(place + 1) * size) }
    #expect(storage.indices.allSatisfy { touched.contains($0) || storage[$0] == 0xEE })
  }

  @Test("storage that is too short is refused, not read beyond")
  func short() throws {
    let layout = try StridedLayout([2, 3], strides: [32, 1], scalarSize: 2)
    #expect(layout.extent == 70)
    let storage = [UInt8](repeating: 0, count: 69)
    var dense = [UInt8](repeating: 0, count: 12)
    #expect(throws: TensorError.storage(needed: 70, found: 69)) {
      try storage.withUnsafeBytes { source in
        try dense.withUnsafeMutableBytes { try layout.gather(from: source, into: $0) }
      }
    }
  }

  @Test(
    "strides that describe no array are refused",
    arguments: [
      ([2, 3], [1]), ([2, 3], [-3, 1]), ([2, 3], [.max, 1]), ([2, -3], [3, 1]),
      ([.max, 3], [3, 1]), ([0, .max], [.max, .max]),
    ])
  func senseless(shape: [Int], strides: [Int]) {
    #expect(throws: TensorError.strides(shape: shape, strides: strides)) {
      try StridedLayout(shape, strides: strides, scalarSize: 4)
    }
  }

  /// Element by element in C order, by the offset rule of MLMultiArray's header.
  private func naive(_ storage: [UInt8], _ example: Case, _ size: Int) -> [UInt8] {
    places(example).flatMap { storage[$0 * size..<($0 + 1) * size] }
  }

  private func places(_ example: Case) -> [Int] {
    zip(example.shape, example.strides).reduce([0]) { places, axis in
      places.flatMap { place in (0..<axis.0).map { place + $0 * axis.1 } }
    }
  }
}
