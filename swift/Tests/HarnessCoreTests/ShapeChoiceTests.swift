import Testing

@testable import HarnessCore

@Suite("Which shape, which function")
struct ShapeChoiceTests {
  static let sizeTexts: [(String, ImageSize?)] = [
    ("768", ImageSize(height: 768, width: 768)), ("768x1344", ImageSize(height: 768, width: 1344)),
    ("", nil), ("x", nil), ("768x", nil), ("-8", nil), ("0", nil), ("1x2x3", nil), ("7.5", nil),
    ("99999999999999999999", nil), ("٣", nil),
  ]

  let enumerated = Interfaces.decoder(
    latent: Interfaces.feature("latent", [1, 4, 2, 3], enumerated: [[1, 4, 2, 3], [1, 4, 8, 8]]))

  @Test("without a wish the declared shape is taken, or the first of those allowed")
  func defaults() throws {
    #expect(try decide(.anything, Interfaces.decoder()) == .shapes(["latent": [1, 4, 2, 3]]))
    let nameless = Interfaces.feature("latent", [], enumerated: [[1, 4, 8, 8]])
    let model = Interfaces.decoder(latent: nameless)
    #expect(try decide(.anything, model) == .shapes(["latent": [1, 4, 8, 8]]))
    let silent = Interfaces.decoder(latent: Interfaces.feature("latent", []))
    #expect(throws: ModelFault.noShape(feature: "latent")) { try decide(.anything, silent) }
  }

  @Test("a size picks one of the enumerated shapes, in the model's layout")
  func sizes() throws {
    let size = ImageSize(height: 64, width: 64)
    #expect(try decide(.size(size), enumerated) == .shapes(["latent": [1, 4, 8, 8]]))
    let nhwc = Interfaces.decoder(
      metadata: Interfaces.metadata(layout: "nhwc"),
      latent: Interfaces.feature(
        "latent", [1, 2, 3, 4], ranges: [[1, 1], [2, 9], [3, nil], [4, 4]]))
    let wide = ImageSize(height: 72, width: 8000)
    #expect(try decide(.size(wide), nhwc) == .shapes(["latent": [1, 9, 1000, 4]]))
    let tall = ImageSize(height: 80, width: 80)
    #expect(try otherFunction(.size(tall), nhwc) == "hw80")
  }

  @Test("a shape that the function does not take points at another function by name")
  func functions() throws {
    let shape = Wanted.array(name: "latent", shape: [1, 4, 8, 16])
    #expect(try otherFunction(shape, enumerated) == "h64w128")
    let square = Wanted.array(name: "latent", shape: [1, 4, 8, 8])
    #expect(try otherFunction(square, Interfaces.decoder()) == "hw64")
  }

  @Test("sizes that are no multiple of the scale, or of a model that does not tell, are refused")
  func impossible() throws {
    let odd = ImageSize(height: 63, width: 64)
    #expect(throws: ModelFault.size(odd, declared: "inputs of [1, 4, 2, 3] or [1, 4, 8, 8]")) {
      try decide(.size(odd), enumerated)
    }
    let foreign = Interfaces.decoder(metadata: [:])
    #expect(throws: ModelFault.sizeUnknown) {
      try decide(.size(ImageSize(height: 64, width: 64)), foreign)
    }
  }

  @Test("sizes are read strictly", arguments: sizeTexts)
  func parsing(text: String, expected: ImageSize?) { #expect(ImageSize(text) == expected) }

  private func decide(_ wanted: Wanted, _ interface: Interface) throws -> ShapeChoice {
    try ShapeChoice.decide(wanted, for: interface)
  }

  private func otherFunction(_ wanted: Wanted, _ interface: Interface) throws -> String? {
    guard case .otherFunction(let guess, _) = try decide(wanted, interface) else { return nil }
    return guess
  }
}
