/// What the caller wants to feed a model, before its declaration is known.
enum Wanted: Equatable, Sendable {
  case anything
  case size(ImageSize)
  case array(name: String, shape: [Int])
}

/// Whether a loaded function takes what is wanted, decided from declarations alone.
enum ShapeChoice: Equatable, Sendable {
  /// Shapes for the inputs, by name.
  case shapes([String: [Int]])
  /// Another function may; its usual name comes first when it can be told.
  case otherFunction(guess: String?, fault: ModelFault)

  /// - Throws: `ModelFault` when no function of this model could help.
  static func decide(_ wanted: Wanted, for interface: Interface) throws(ModelFault) -> ShapeChoice {
    let record = try ArtifactRecord(metadata: interface.metadata)
    switch wanted {
    case .anything:
      return .shapes(try defaults(interface, except: nil))
    case .array(let name, let shape):
      guard let feature = interface.input(named: name), !feature.accepts(shape) else {
        var shapes = try defaults(interface, except: name)
        shapes[name] = shape
        return .shapes(shapes)
      }
      return .otherFunction(
        guess: guess(shape: shape, record: record),
        fault: .shape(wanted: shape, declared: feature.shapeText))
    case .size(let size):
      return try decide(size, for: interface, record: record)
    }
  }

  private static func decide(
    _ size: ImageSize, for interface: Interface, record: ArtifactRecord?
  ) throws(ModelFault) -> ShapeChoice {
    guard let record, let layout = record.layout, let scale = record.scale, scale > 0,
      let feature = interface.inputs.first, feature.kind == .multiArray,
      [3, 4].contains(feature.shape.count)
    else { throw .sizeUnknown }
    let fault = ModelFault.size(size, declared: "inputs of \(feature.shapeText)")
    guard size.height % scale == 0, size.width % scale == 0 else { throw fault }
    var shape = feature.shape
    if shape.count == 3 {  // tokens
      shape[1] = (size.height / scale) * (size.width / scale)
    } else {
      shape[layout.spatial.height] = size.height / scale
      shape[layout.spatial.width] = size.width / scale
    }
    guard feature.accepts(shape) else { return .otherFunction(guess: size.function, fault: fault) }
    var shapes = try defaults(interface, except: feature.name)
    shapes[feature.name] = shape
    return .shapes(shapes)
  }

  private static func guess(shape: [Int], record: ArtifactRecord?) -> String? {
    guard let record, let layout = record.layout, let scale = record.scale, shape.count == 4
    else { return nil }
    let size = ImageSize(
      height: shape[layout.spatial.height] * scale, width: shape[layout.spatial.width] * scale)
    return size.function
  }

  private static func defaults(
    _ interface: Interface, except name: String?
  ) throws(ModelFault) -> [String: [Int]] {
    var shapes: [String: [Int]] = [:]
    for feature in interface.inputs where feature.name != name {
      if feature.kind == .image { throw .image(feature: feature.name) }
      guard feature.kind == .multiArray else { throw .unreadable(feature: feature.name) }
      guard let shape = feature.shape.isEmpty ? feature.shapes.first : feature.shape else {
        throw .noShape(feature: feature.name)
      }
      shapes[feature.name] = shape
    }
    return shapes
  }
}
