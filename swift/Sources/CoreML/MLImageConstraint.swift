import Foundation

/// Size and pixel format of an image feature.
open class MLImageConstraint: NSObject {
  public let pixelsHigh: Int
  public let pixelsWide: Int
  /// A four-character code; Apple's `OSType`.
  public let pixelFormatType: UInt32
  public let sizeConstraint: MLImageSizeConstraint

  init(high: Int, wide: Int, pixelFormat: UInt32, sizeConstraint: MLImageSizeConstraint) {
    pixelsHigh = high
    pixelsWide = wide
    pixelFormatType = pixelFormat
    self.sizeConstraint = sizeConstraint
  }
}
