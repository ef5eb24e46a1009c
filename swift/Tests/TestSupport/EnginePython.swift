import Foundation

/// The Python that makes the models of the tests and, on Linux, runs them.
///
/// `FLUXVAE_PYTHON` names it, else it is `python3`, as for the module CoreML on Linux. It must be
/// able to import all of `modules`; a test that needs it is skipped where it cannot.
public enum EnginePython {
  /// fluxvae imports the others: NumPy and torch compute, coremltools reads and makes models,
  /// diffusers has the architecture of full decoders, skimage the photos.
  public static let modules = ["fluxvae", "numpy", "torch", "coremltools", "diffusers", "skimage"]

  public static let path = {
    let named = ProcessInfo.processInfo.environment["FLUXVAE_PYTHON"] ?? ""
    return named.isEmpty ? "python3" : named
  }()

  /// Why there is none that can be used; nil when there is one.
  public static let problem: String? = problem(of: path)

  /// What keeps a Python from being used; nil when nothing does.
  public static func problem(
    of python: String, modules: [String] = EnginePython.modules
  ) -> String? {
    let script = """
      import importlib.util as u, sys
      print(*[m for m in sys.argv[1:] if u.find_spec(m) is None], sep=", ", end="")
      """
    let process = Process()
    let output = Pipe()
    process.executableURL = URL(filePath: "/usr/bin/env")
    process.arguments = [python, "-c", script] + modules
    process.standardOutput = output
    process.standardError = FileHandle.nullDevice
    guard (try? process.run()) != nil else { return "/usr/bin/env cannot be run" }
    let missing = String(decoding: output.fileHandleForReading.readDataToEndOfFile(), as: UTF8.self)
    process.waitUntilExit()
    if process.terminationStatus != 0 { return "\(python) cannot be run: set FLUXVAE_PYTHON" }
    return missing.isEmpty
      ? nil : "\(python) cannot import \(missing): set FLUXVAE_PYTHON to a Python that can"
  }
}
