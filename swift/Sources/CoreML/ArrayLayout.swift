/// Where the elements of an array lie: sizes and strides, both in elements.
struct ArrayLayout: Equatable, Sendable {
  let shape: [Int]
  let strides: [Int]
  /// Elements to allocate: at least `span`.
  let allocated: Int

  init(shape: [Int], strides: [Int]) {
    self.shape = shape
    self.strides = strides
    allocated = Self.span(shape, strides)
  }

  /// First-major order without gaps, for a shape known to be possible.
  init(dense shape: [Int]) {
    self.init(shape: shape, strides: Self.denseStrides(shape, row: shape.last ?? 1))
  }

  /// First-major order without gaps, checked.
  init(dense shape: [Int], elementBytes: Int) throws {
    try Self.check(shape: shape, elementBytes: elementBytes)
    self.init(dense: shape)
  }

  /// First-major order with every row of the last dimension padded to `row` elements.
  init(shape: [Int], row: Int) {
    self.shape = shape
    strides = Self.denseStrides(shape, row: row)
    allocated = shape.isEmpty ? 1 : shape.dropLast().reduce(1, *) * row
  }

  init(checkedShape shape: [Int], strides: [Int], elementBytes: Int) throws {
    try Self.check(shape: shape, elementBytes: elementBytes)
    guard strides.count == shape.count else {
      throw MLModelError(
        .generic, "A shape of \(shape.count) dimensions came with \(strides.count) strides.")
    }
    guard strides.allSatisfy({ $0 >= 0 }) else {
      throw MLModelError(.generic, "Strides \(strides) hold a negative value; use 0 or more.")
    }
    self.init(shape: shape, strides: strides)
  }

  var count: Int { shape.reduce(1, *) }
  /// Elements from the first to the last one, gaps between them included.
  var span: Int { Self.span(shape, strides) }
  var isDense: Bool { strides == Self.denseStrides(shape, row: shape.last ?? 1) }

  func offset(of index: [Int]) -> Int {
    precondition(index.count == shape.count, "an index for each dimension is needed")
    return zip(zip(index, shape), strides).reduce(0) { sum, next in
      precondition(next.0.0 >= 0 && next.0.0 < next.0.1, "index \(index) is outside \(shape)")
      return sum + next.0.0 * next.1
    }
  }

  func offset(ofLinear index: Int) -> Int {
    precondition(index >= 0 && index < count, "index \(index) is outside \(count) elements")
    var rest = index
    var offset = 0
    for (size, stride) in zip(shape, strides).reversed() {
      offset += rest % size * stride
      rest /= size
    }
    return offset
  }

  private static func span(_ shape: [Int], _ strides: [Int]) -> Int {
    if shape.contains(0) { return 0 }
    return zip(shape, strides).reduce(1) { $0 + ($1.0 - 1) * $1.1 }
  }

  private static func denseStrides(_ shape: [Int], row: Int) -> [Int] {
    var strides = [Int](repeating: 1, count: shape.count)
    guard shape.count > 1 else { return strides }
    var step = row
    for axis in stride(from: shape.count - 2, through: 0, by: -1) {
      strides[axis] = step
      step *= shape[axis]
    }
    return strides
  }

  private static func check(shape: [Int], elementBytes: Int) throws {
    var bytes = elementBytes
    for size in shape {
      guard size >= 0 else {
        throw MLModelError(.generic, "Shape \(shape) holds a negative size; use 0 or more.")
      }
      let (product, overflow) = bytes.multipliedReportingOverflow(by: max(1, size))
      guard !overflow else {
        throw MLModelError(.generic, "Shape \(shape) asks for more memory than there can be.")
      }
      bytes = product
    }
  }
}
