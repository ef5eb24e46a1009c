import Foundation

/// One allowed size of an image feature.
open class MLImageSize: NSObject {
  public let pixelsWide: Int
  public let pixelsHigh: Int

  init(wide: Int, high: Int) {
    pixelsWide = wide
    pixelsHigh = high
  }
}
