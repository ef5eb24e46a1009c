import Foundation

/// What a model says of itself: its features and its metadata.
open class MLModelDescription: NSObject {
  public let inputDescriptionsByName: [String: MLFeatureDescription]
  public let outputDescriptionsByName: [String: MLFeatureDescription]
  /// Author, licence, version, text, and the author's own entries under `creatorDefinedKey`.
  public let metadata: [MLModelMetadataKey: Any]
  /// Nil: no model that this module runs is a classifier.
  public let predictedFeatureName: String? = nil
  /// Nil: no model that this module runs is a classifier.
  public let predictedProbabilitiesName: String? = nil

  init(
    inputs: [MLFeatureDescription], outputs: [MLFeatureDescription],
    metadata: [MLModelMetadataKey: Any]
  ) {
    inputDescriptionsByName = Dictionary(inputs.map { ($0.name, $0) }) { first, _ in first }
    outputDescriptionsByName = Dictionary(outputs.map { ($0.name, $0) }) { first, _ in first }
    self.metadata = metadata
  }
}
