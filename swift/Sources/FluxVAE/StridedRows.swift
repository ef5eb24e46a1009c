/// Where the elements of a strided array lie: runs of equal length, in the array's own order.
///
/// Neighbouring axes without padding between them are merged, so that a dense array is one run and
/// an array with padded rows is one run per row.
struct StridedRows {
  /// Elements in each run.
  let length: Int
  /// Elements from one of a run to the next.
  let step: Int
  /// Extent and stride of the axes around the runs, outermost first.
  private let outer: [(extent: Int, stride: Int)]

  /// - Throws: `FluxVAEError.strides` when they are of another rank, negative, or too large.
  init(shape: [Int], strides: [Int]) throws {
    guard Self.describesArray(shape, strides) else {
      throw FluxVAEError.strides(strides, shape: shape)
    }
    var axes: [(extent: Int, stride: Int)] = []
    for (extent, stride) in zip(shape, strides) where extent != 1 {
      if let last = axes.last, last.stride == extent * stride {
        axes[axes.count - 1] = (last.extent * extent, stride)
      } else {
        axes.append((extent, stride))
      }
    }
    let inner = axes.popLast() ?? (extent: 1, stride: 1)
    length = inner.extent
    step = inner.stride
    outer = axes
  }

  /// Calls `body` with the offset of each run, in order.
  func forEachOffset(_ body: (Int) -> Void) {
    guard length > 0, outer.allSatisfy({ $0.extent > 0 }) else { return }
    var index = [Int](repeating: 0, count: outer.count)
    var offset = 0
    while true {
      body(offset)
      var axis = outer.count - 1
      while axis >= 0 {
        index[axis] += 1
        offset += outer[axis].stride
        if index[axis] < outer[axis].extent { break }
        offset -= outer[axis].extent * outer[axis].stride
        index[axis] = 0
        axis -= 1
      }
      if axis < 0 { return }
    }
  }

  /// Elements in all runs together.
  var count: Int {
    outer.reduce(length) { $0 * $1.extent }
  }

  /// Whether each element has an offset, in bytes too, that is an `Int` from 0 up.
  private static func describesArray(_ shape: [Int], _ strides: [Int]) -> Bool {
    guard shape.count == strides.count, (shape + strides).allSatisfy({ $0 >= 0 }) else {
      return false
    }
    var (elements, last) = (8, 0)
    for (extent, stride) in zip(shape, strides) {
      let (product, tooMany) = elements.multipliedReportingOverflow(by: extent)
      guard !tooMany else { return false }
      let (reach, tooFar) = stride.multipliedReportingOverflow(by: max(extent - 1, 0) &* 8)
      let (sum, overflow) = last.addingReportingOverflow(reach)
      guard !tooFar, !overflow else { return false }
      (elements, last) = (product, sum)
    }
    return true
  }
}
