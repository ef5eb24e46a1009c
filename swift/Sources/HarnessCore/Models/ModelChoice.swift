@preconcurrency import CoreML
import Foundation

/// A model, and what of it is wanted.
public struct ModelChoice: Equatable, Sendable {
  public let path: String
  public let function: String?
  public let size: ImageSize?
  public let units: [ComputeUnits]

  public init(
    path: String, function: String? = nil, size: ImageSize? = nil, units: [ComputeUnits] = [.all]
  ) {
    self.path = path
    self.function = function
    self.size = size
    self.units = units.isEmpty ? [.all] : units
  }

  var url: URL { URL(fileURLWithPath: path) }

  /// What has to be fed: the bundle's input, else the size that was asked for.
  private func wanted(_ bundle: IOBundle?) throws(BundleError) -> Wanted {
    guard let bundle else { return size.map { .size($0) } ?? .anything }
    if let size, let own = ImageSize(bundle.manifest.size), own != size {
      throw .manifest("its size is \(own), and --size asks for \(size)")
    }
    let input = bundle.manifest.input
    return .array(name: input.name, shape: input.shape)
  }

  /// Loads the function that takes the bundle's input, or the size that was asked for.
  ///
  /// Without `function` the default one is loaded first. If it does not take the shape, the others
  /// are tried, the likeliest first; the time reported is that of the one that is kept.
  ///
  /// - Throws: `BundleError` for a bundle of another model, `ModelFault` when no function fits.
  func open(
    _ bundle: IOBundle?, units: ComputeUnits, loader: ModelLoader
  ) async throws -> (model: LoadedModel, shapes: [String: [Int]]) {
    let wanted = try wanted(bundle)
    let first = try LoadedModel(url: url, function: function, units: units, loader: loader)
    try bundle?.origin(of: first.interface.metadata)
    switch try ShapeChoice.decide(wanted, for: first.interface) {
    case .shapes(let shapes): return (first, shapes)
    case .otherFunction(let guess, let fault):
      guard function == nil, let names = await functionNames() else { throw fault }
      let likely = names.filter { $0 == guess } + names.filter { $0 != guess }
      for name in likely {
        let model = try LoadedModel(url: url, function: name, units: units, loader: loader)
        if case .shapes(let shapes) = try ShapeChoice.decide(wanted, for: model.interface) {
          return (model, shapes)
        }
      }
      throw fault
    }
  }

  /// The model's functions, or nil where the system cannot list them.
  func functionNames() async -> [String]? {
    guard let asset = try? MLModelAsset(url: url) else { return nil }
    return try? await asset.functionNames.sorted()
  }
}
