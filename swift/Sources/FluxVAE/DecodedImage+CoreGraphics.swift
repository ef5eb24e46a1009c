#if canImport(CoreGraphics)
  import CoreGraphics
  import Foundation

  extension DecodedImage {
    /// The image as 8-bit sRGB without alpha. Not yet run on a Mac.
    ///
    /// - Parameter range: What black and white stand for, where the model does not say.
    /// - Throws: `FluxVAEError.unknownRange`, or `.noImage` when CoreGraphics makes none.
    public func cgImage(range: ClosedRange<Float>? = nil) throws -> CGImage {
      let bytes = try rgb8(range: range)
      guard
        let provider = CGDataProvider(data: Data(bytes) as CFData),
        let space = CGColorSpace(name: CGColorSpace.sRGB),
        let image = CGImage(
          width: size.width, height: size.height, bitsPerComponent: 8, bitsPerPixel: 24,
          bytesPerRow: 3 * size.width, space: space,
          bitmapInfo: CGBitmapInfo(rawValue: CGImageAlphaInfo.none.rawValue),
          provider: provider, decode: nil, shouldInterpolate: false, intent: .defaultIntent)
      else {
        throw FluxVAEError.noImage(size)
      }
      return image
    }
  }
#endif
