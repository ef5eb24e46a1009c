import Foundation
import Synchronization

extension EnginePython {
  public struct Failure: Error {
    /// What the Python wrote to standard error.
    public let log: String
  }

  /// The models of make_models.py, y = 2x + 1, made once for all tests.
  public static let affineModels = Result {
    try make([Repository.root.appending(path: "swift/Tests/TestSupport/make_models.py").path])
  }

  private static let folders = Mutex<[URL]>([])
  private static let removal = atexit {
    for folder in EnginePython.folders.withLock({ $0 }) {
      try? FileManager.default.removeItem(at: folder)
    }
  }

  /// Runs the Python in the checkout, with `arguments` and a new folder that goes away with this
  /// process.
  ///
  /// - Returns: The folder, with what the Python wrote there.
  public static func make(_ arguments: [String]) throws -> URL {
    _ = removal
    let folder = FileManager.default.temporaryDirectory
      .appending(path: "fluxvae-tests-\(UUID().uuidString)")
    folders.withLock { $0.append(folder) }
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    let process = Process()
    let errors = Pipe()
    process.executableURL = URL(filePath: "/usr/bin/env")
    process.arguments = [path] + arguments + [folder.path]
    process.currentDirectoryURL = Repository.root
    process.standardError = errors
    try process.run()
    let log = errors.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    guard process.terminationStatus == 0 else {
      throw Failure(log: String(decoding: log, as: UTF8.self))
    }
    return folder
  }
}
