import Foundation

/// How a model is loaded.
///
/// `preferredMetalDevice` is not declared: Linux has no Metal. `parameters` is not declared: no
/// model that this module runs takes any.
open class MLModelConfiguration: NSObject, NSCopying {
  /// Compute units the model may use. Apple's default is all of them.
  open var computeUnits: MLComputeUnits = .all
  /// A name for the model in tools; nil leaves it unnamed.
  open var modelDisplayName: String?
  /// Kept, and without effect on Linux.
  open var allowLowPrecisionAccumulationOnGPU = false
  /// The function to run of a model that has several; nil is the default one.
  open var functionName: String?
  /// Kept, and without effect on Linux.
  open var optimizationHints = MLOptimizationHints()

  public override init() {}

  open func copy(with zone: NSZone? = nil) -> Any { duplicate() }

  func duplicate() -> MLModelConfiguration {
    let copy = MLModelConfiguration()
    copy.computeUnits = computeUnits
    copy.modelDisplayName = modelDisplayName
    copy.allowLowPrecisionAccumulationOnGPU = allowLowPrecisionAccumulationOnGPU
    copy.functionName = functionName
    copy.optimizationHints = optimizationHints
    return copy
  }
}
