import Foundation

extension MLModelDescription {
  /// The description that the engine sent.
  convenience init(_ sent: EngineDescription) throws {
    let metadata = sent.metadata
    self.init(
      inputs: try sent.inputs.map(MLFeatureDescription.init),
      outputs: try sent.outputs.map(MLFeatureDescription.init),
      metadata: [
        .author: metadata.author, .license: metadata.license, .versionString: metadata.version,
        .description: metadata.description, .creatorDefinedKey: metadata.user,
      ])
  }
}

extension MLFeatureDescription {
  convenience init(_ sent: EngineDescription.Feature) throws {
    if sent.kind == "image" {
      self.init(
        name: sent.name, type: .image, isOptional: false, multiArray: nil,
        image: MLImageConstraint(sent))
    } else {
      self.init(
        name: sent.name, type: .multiArray, isOptional: false,
        multiArray: try MLMultiArrayConstraint(sent), image: nil)
    }
  }
}

extension MLMultiArrayConstraint {
  convenience init(_ sent: EngineDescription.Feature) throws {
    let names = ["fp16": MLMultiArrayDataType.float16, "fp32": .float32, "fp64": .double]
    guard let type = sent.dtype == "int32" ? .int32 : names[sent.dtype] else {
      throw MLModelError(
        .featureType,
        "Feature \(sent.name) has elements of type \(sent.dtype), which this module "
          + "does not know.")
    }
    self.init(
      shape: sent.shape, dataType: type, shapeConstraint: MLMultiArrayShapeConstraint(sent))
  }
}

extension MLMultiArrayShapeConstraint {
  /// A fixed shape counts as one enumerated shape: public code that tells fixed models from
  /// flexible ones on Apple's platforms asks whether there is more than one.
  convenience init(_ sent: EngineDescription.Feature) {
    if !sent.ranges.isEmpty {
      self.init(type: .range, ranges: sent.ranges.map(NSRange.init(sizes:)), shapes: [])
    } else if !sent.shapes.isEmpty {
      self.init(type: .enumerated, ranges: [], shapes: sent.shapes)
    } else if !sent.shape.isEmpty {
      self.init(type: .enumerated, ranges: [], shapes: [sent.shape])
    } else {
      self.init(type: .unspecified, ranges: [], shapes: [])
    }
  }
}

extension MLImageConstraint {
  /// Colour images are given Core Video's 32BGRA, grey ones OneComponent8 or OneComponent16Half.
  convenience init(_ sent: EngineDescription.Feature) {
    let formats: [String: UInt32] = ["GRAYSCALE": 0x4C30_3038, "GRAYSCALE_FLOAT16": 0x4C30_3068]
    let sizes = sent.shapes.filter { $0.count == 2 }.map { MLImageSize(wide: $0[1], high: $0[0]) }
    let spans = sent.ranges.map(NSRange.init(sizes:))
    let type: MLImageSizeConstraintType =
      spans.count == 2 ? .range : sizes.isEmpty ? .unspecified : .enumerated
    let none = NSRange(location: 0, length: 0)
    self.init(
      high: sent.shape.first ?? 0, wide: sent.shape.last ?? 0,
      pixelFormat: formats[sent.color ?? ""] ?? 0x4247_5241,
      sizeConstraint: MLImageSizeConstraint(
        type: type, wide: type == .range ? spans[1] : none, high: type == .range ? spans[0] : none,
        sizes: sizes))
  }
}

extension NSRange {
  /// The sizes from a lowest to a highest one; -1 as the highest means there is none.
  fileprivate init(sizes: [Int]) {
    let (low, high) = (sizes.first ?? 0, sizes.last ?? 0)
    self.init(location: low, length: high < 0 ? Int.max - low : high - low + 1)
  }
}
