/// Axis order of a 4-D array.
public enum Layout: String, Codable, Sendable {
  case nchw
  case nhwc

  /// The places of height and width.
  var spatial: (height: Int, width: Int) {
    switch self {
    case .nchw: (2, 3)
    case .nhwc: (1, 2)
    }
  }
}
