import TestSupport
import Testing

/// Why tests with models are skipped is said.
@Suite struct EnginePythonTests {
  @Test func aPythonThatIsNotThereIsNamed() throws {
    let problem = try #require(EnginePython.problem(of: "/nowhere/python"))
    #expect(problem.contains("/nowhere/python cannot be run"))
    #expect(problem.contains("FLUXVAE_PYTHON"))
  }

  @Test(.enabled(if: DemoModels.isPossible, DemoModels.reason))
  func whatAPythonLacksIsNamed() throws {
    let problem = EnginePython.problem(of: EnginePython.path, modules: ["json", "no_such_module"])
    #expect(problem?.contains("cannot import no_such_module: set FLUXVAE_PYTHON") == true)
  }
}
