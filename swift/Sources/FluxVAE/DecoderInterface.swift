import CoreML

/// What one loaded function takes and gives: its description and its record brought together.
struct DecoderInterface: Equatable, Sendable {
  let input: TensorFeature
  let output: TensorFeature
  let layout: TensorLayout
  let channels: Int
  /// Whether the latent is tokens: three axes, which do not tell rows from columns.
  let tokens: Bool
  /// Image pixels per latent pixel, each way.
  let scale: Int
  /// Image sizes of this function, the default one first.
  let sizes: [ImageSize]
  let record: ArtifactRecord?

  /// Every downsampling FLUX autoencoder has this, for models without a contract whose image
  /// size only a run tells.
  private static let usualScale = 8

  /// What a model's description says of one function.
  ///
  /// - Throws: `FluxVAEError` when it is not a whole decoder, or its record is damaged.
  init(_ description: MLModelDescription, ignoringRecord: Bool) throws {
    let record =
      ignoringRecord ? try? ArtifactRecord(description) : try ArtifactRecord(description)
    if record?.tiles != nil {
      throw FluxVAEError.notADecoder(reason: "this model makes tiles: use TiledDecoder")
    }
    if let part = record?.part {
      throw FluxVAEError.notADecoder(
        reason: "this model is part \(part.number) of \(part.of); the other is \(part.other)")
    }
    try self.init(
      input: TensorFeature(only: description.inputDescriptionsByName, side: "input"),
      output: TensorFeature(only: description.outputDescriptionsByName, side: "output"),
      record: record)
  }

  /// - Throws: `FluxVAEError.notADecoder` when the shapes are not a decoder's;
  ///   `.contradiction` when the record says otherwise than the description.
  init(input: TensorFeature, output: TensorFeature, record: ArtifactRecord?) throws {
    guard let latent = input.shapes.first else {
      throw FluxVAEError.notADecoder(reason: "this model's input \(input.name) has no shape")
    }
    let layout =
      try record?.recipe.layout ?? Self.layout(latent: latent, image: output.shapes.first)
    let tokens = record?.contract.isTokens ?? false
    let axes = try input.shapes.map { shape in
      if tokens, let record {
        return try Self.places(of: shape, image: output.shapes.first, layout, record)
      }
      guard shape.count == 4, let axes = layout.split(shape) else {
        throw FluxVAEError.notADecoder(reason: "this model's input has the shape \(shape)")
      }
      return axes
    }
    let channels = record?.contract.channels ?? axes[0].channels
    guard axes.allSatisfy({ $0.channels == channels }) else {
      throw FluxVAEError.contradiction(
        what: "the latent", record: "\(channels) channels (\(layout.rawValue))",
        description: "\(latent)")
    }
    let image = output.shapes.first.flatMap(layout.split)
    let described = image.map { $0.height / axes[0].height }
    let scale = record?.contract.scale ?? described ?? Self.usualScale
    self.input = input
    self.output = output
    self.layout = layout
    self.channels = channels
    self.tokens = tokens
    self.scale = scale
    self.sizes = axes.map { ImageSize(height: $0.height * scale, width: $0.width * scale) }
    self.record = record
    try checkImage()
    try checkSizes()
  }

  /// Channels, rows and columns of a matrix of tokens: the described image tells, or else the one
  /// size of the record that has as many places.
  private static func places(
    of shape: [Int], image: [Int]?, _ layout: TensorLayout, _ record: ArtifactRecord
  ) throws -> (channels: Int, height: Int, width: Int) {
    let scale = record.contract.scale
    let described = image.flatMap(layout.split).map { ImageSize(height: $0.height, width: $0.width) }
    let sizes = (described.map { [$0] } ?? record.sizes).filter { size in
      shape.count == 3 && shape[0] == 1
        && (size.height / scale) * (size.width / scale) == shape[1]
    }
    guard let size = sizes.first, sizes.count == 1 else {
      throw FluxVAEError.contradiction(
        what: "the latent", record: "tokens of \(record.contract.channels) for \(record.sizes)",
        description: "\(shape)")
    }
    return (shape[2], size.height / scale, size.width / scale)
  }

  /// The shape of one latent as the model takes it.
  func inputShape(_ latent: LatentMap) -> [Int] {
    tokens
      ? [1, latent.height * latent.width, latent.channels]
      : layout.shape(channels: latent.channels, height: latent.height, width: latent.width)
  }

  /// The order of the latent's numbers in the model's input: a token is a pixel's channels.
  var inputOrder: TensorLayout { tokens ? .nhwc : layout }

  /// The layout of a model that does not say: the image's channels are the axis of three.
  private static func layout(latent: [Int], image: [Int]?) throws -> TensorLayout {
    let fitting = TensorLayout.allCases.filter { layout in
      image.flatMap(layout.split)?.channels == 3
    }
    guard let layout = fitting.first, fitting.count == 1 else {
      throw FluxVAEError.notADecoder(
        reason: """
          this model's latent \(latent) and image \(image ?? []) do not tell whether channels \
          come first or last
          """)
    }
    return layout
  }

  /// The described image must be the one that the default size makes.
  private func checkImage() throws {
    guard let image = output.shapes.first else { return }
    let size = sizes[0]
    let expected = layout.shape(channels: 3, height: size.height, width: size.width)
    guard image == expected else {
      throw record == nil
        ? FluxVAEError.notADecoder(reason: "this model's output has the shape \(image)")
        : FluxVAEError.contradiction(
          what: "the image", record: "\(expected)", description: "\(image)")
    }
  }

  /// The record's sizes must hold this function's, and without functions be the same.
  private func checkSizes() throws {
    guard let record else { return }
    let agrees =
      record.functions.isEmpty
      ? Set(record.sizes) == Set(sizes) : Set(record.sizes).isSuperset(of: sizes)
    guard agrees else {
      throw FluxVAEError.contradiction(
        what: "the sizes", record: "\(record.sizes)", description: "\(sizes)")
    }
  }

  /// The function that makes images of `size`; nil when it is this one.
  ///
  /// - Throws: `FluxVAEError.unsupportedSize` when none does.
  func otherFunction(for size: ImageSize) throws -> String? {
    if sizes.contains(size) { return nil }
    guard let record, !record.functions.isEmpty, record.sizes.contains(size) else {
      throw FluxVAEError.unsupportedSize(size, supported: allSizes)
    }
    return size.function
  }

  /// Image sizes of all the model's functions.
  var allSizes: [ImageSize] {
    record.map { $0.functions.isEmpty ? sizes : $0.sizes } ?? sizes
  }

  /// A latent as this decoder reads it, and the size of its image.
  ///
  /// - Throws: `FluxVAEError.channels`, `.unsupportedSize`, `.latentShape` or `.latentAmbiguous`
  ///   when it is not this decoder's latent.
  func read(_ latent: Latent) throws -> (map: LatentMap, size: ImageSize) {
    if tokens, let map = try latent.tokens(channels: channels, sizes: allSizes, scale: scale) {
      return (map, ImageSize(height: map.height * scale, width: map.width * scale))
    }
    return try latent.read(in: inputOrder) { map in
      guard map.channels == channels else {
        throw FluxVAEError.channels(expected: channels, found: map.channels)
      }
      let size = ImageSize(height: map.height * scale, width: map.width * scale)
      guard allSizes.contains(size) else {
        throw FluxVAEError.unsupportedSize(size, supported: allSizes)
      }
      return (map, size)
    }
  }
}
