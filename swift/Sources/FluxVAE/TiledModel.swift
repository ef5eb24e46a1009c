import CoreML
import Foundation

/// What a model of tiles says of itself: its record, and the images that its front takes.
struct TiledModel: Equatable, Sendable {
  let record: ArtifactRecord
  /// Sides of an image in pixels; multiples of the scale.
  let heights: ClosedRange<Int>
  let widths: ClosedRange<Int>

  /// - Parameters:
  ///   - rows: Rows of the latent that the front takes.
  ///   - columns: Columns of it.
  init(_ record: ArtifactRecord, rows: ClosedRange<Int>, columns: ClosedRange<Int>) {
    func sides(_ range: ClosedRange<Int>) -> ClosedRange<Int> {
      let scale = record.contract.scale
      let possible = 1...max(1, ArtifactRecord.sides.upperBound / scale)
      let kept = range.clamped(to: possible)
      return kept.lowerBound * scale...kept.upperBound * scale
    }
    self.record = record
    heights = sides(rows)
    widths = sides(columns)
  }

  /// Reads the description of the default function, which is a front. That of a tiny decoder takes
  /// a range of sizes.
  init(_ record: ArtifactRecord, _ description: MLModelDescription) {
    let input = description.inputDescriptionsByName[TiledDecoder.Plan.latent]
    let constraint = input?.multiArrayConstraint?.shapeConstraint
    let ranges = constraint?.type == .range ? constraint?.sizeRangeForDimension ?? [] : []
    let spans = ranges.map(\.rangeValue).map { $0.location...$0.location + max(0, $0.length - 1) }
    let axes = record.recipe.layout == .nchw ? (2, 3) : (1, 2)
    let any = 1...Int.max
    self.init(
      record, rows: spans.count == 4 ? spans[axes.0] : any,
      columns: spans.count == 4 ? spans[axes.1] : any)
  }

  /// Whether images of this size can be made, as far as the front goes.
  func takes(_ size: ImageSize) -> Bool {
    let scale = record.contract.scale
    return heights.contains(size.height) && widths.contains(size.width)
      && size.height.isMultiple(of: scale) && size.width.isMultiple(of: scale)
  }

  /// The sizes next to one that cannot be made: the smaller and the larger one.
  func near(_ size: ImageSize) -> [ImageSize] {
    let scale = record.contract.scale
    func side(_ length: Int, _ range: ClosedRange<Int>, _ more: Int) -> Int {
      (min(max(length, range.lowerBound), range.upperBound) + more) / scale * scale
    }
    let sizes = [0, scale - 1].map { more in
      ImageSize(
        height: side(size.height, heights, more), width: side(size.width, widths, more))
    }
    return sizes[0] == sizes[1] ? [sizes[0]] : sizes
  }
}
