import Testing

@testable import fluxvae_harness

@Suite("Usage text comes from the same data as the parser")
struct UsageTests {
  @Test("every command's text names every option it takes", arguments: CommandSpec.all)
  func command(spec: CommandSpec) {
    let text = Usage.text(spec.name)
    #expect(text.hasPrefix("usage: fluxvae-harness \(spec.name.rawValue)"))
    for option in spec.options {
      #expect(text.contains("\n  \(option.name)"))
      #expect(text.contains(option.help))
    }
    #expect(text.split(separator: "\n").allSatisfy { $0.count <= 100 })
  }

  @Test("the overview names every command and every exit code")
  func overview() {
    let text = Usage.text(nil)
    for spec in CommandSpec.all { #expect(text.contains("\n  \(spec.name.rawValue)")) }
    #expect(CommandSpec.all.map(\.name) == CommandSpec.Name.allCases)
    #expect(text.contains("0 done, 1 error, 2 wrong usage, 3 validation failed"))
  }
}
