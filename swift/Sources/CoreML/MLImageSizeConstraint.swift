import Foundation

/// The sizes an image feature may have.
open class MLImageSizeConstraint: NSObject {
  public let type: MLImageSizeConstraintType
  public let pixelsWideRange: NSRange
  public let pixelsHighRange: NSRange
  public let enumeratedImageSizes: [MLImageSize]

  init(type: MLImageSizeConstraintType, wide: NSRange, high: NSRange, sizes: [MLImageSize]) {
    self.type = type
    pixelsWideRange = wide
    pixelsHighRange = high
    enumeratedImageSizes = sizes
  }
}
