import CoreML
import Foundation

/// `compile`: Core ML compiles a package into a stable place, without Xcode.
///
/// Core ML's own cache is keyed by the compiled model's path, and `MLModel.compileModel` makes a
/// new temporary folder on each call: the result has to be moved, or every load is a cold one.
public enum Compile {
  /// - Throws: `ModelFault`: missing input, an output that exists (without `overwrite`), Core ML's
  ///   refusal, or a place that cannot be written. Nothing half-written is left behind.
  public static func run(
    _ package: URL, to target: URL, overwrite: Bool
  ) async throws(ModelFault) -> URL {
    let files = FileManager.default
    guard files.fileExists(atPath: package.path) else { throw .missing(path: package.path) }
    guard overwrite || !files.fileExists(atPath: target.path) else {
      throw .exists(path: target.path)
    }
    let made: URL
    do {
      made = try await MLModel.compileModel(at: package)
    } catch {
      throw .compile(reason: error.localizedDescription)
    }
    do {
      try publish(made, to: target)
    } catch {
      try? files.removeItem(at: made)
      throw .write(path: target.path, reason: error.localizedDescription)
    }
    return target
  }

  /// Moves a folder to its final name in one step; what was there is put aside first and comes
  /// back when the step fails.
  static func publish(_ made: URL, to target: URL) throws {
    let files = FileManager.default
    let parent = target.deletingLastPathComponent()
    try files.createDirectory(at: parent, withIntermediateDirectories: true)
    let staging = parent.appendingPathComponent(".fluxvae-\(UUID().uuidString)")
    try files.createDirectory(at: staging, withIntermediateDirectories: false)
    defer { try? files.removeItem(at: staging) }
    let draft = staging.appendingPathComponent("new")
    let aside = staging.appendingPathComponent("old")
    try files.moveItem(at: made, to: draft)  // copies when it is another volume
    let existed = files.fileExists(atPath: target.path)
    if existed { try files.moveItem(at: target, to: aside) }
    do {
      try files.moveItem(at: draft, to: target)
    } catch {
      if existed { try? files.moveItem(at: aside, to: target) }
      throw error
    }
  }
}
