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

  init(shape: [Int], strides: [Int]) {
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

  /// Elements that a buffer needs to hold every offset; strides are not negative.
  var reach: Int {
    guard length > 0, outer.allSatisfy({ $0.extent > 0 }) else { return 0 }
    return outer.reduce(1 + (length - 1) * step) { $0 + ($1.extent - 1) * $1.stride }
  }
}
