@preconcurrency import CoreML
import Foundation
import Synchronization
import Testing

@testable import HarnessCore

/// A real model on several sets of compute units, some of which a test makes fail.
@Suite("Compute units one after another", .enabled(if: AffineModel.isPossible, AffineModel.reason))
struct EachUnitTests {
  struct Refused: LocalizedError {
    let units: MLComputeUnits
    var errorDescription: String? { "units \(units.rawValue) are out of order" }
  }

  static let settings = Bench.Settings(iterations: 2, idle: 0)
  let choice: ModelChoice
  let folder: BundleFolder

  init() throws {
    choice = try ModelChoice(path: AffineModel.url().path, units: ComputeUnits.allCases)
    folder = try AffineModel.bundle()
  }

  /// Core ML, but for some sets of compute units.
  private func without(_ missing: MLComputeUnits...) -> ModelLoader {
    ModelLoader { url, configuration in
      guard !missing.contains(configuration.computeUnits) else {
        throw Refused(units: configuration.computeUnits)
      }
      return try MLModel(contentsOf: url, configuration: configuration)
    }
  }

  private func reports(_ choice: ModelChoice, _ loader: ModelLoader) async throws -> [Report] {
    [
      try await Bench.run(choice, io: nil, settings: Self.settings, loader: loader) { _ in },
      try await Validate.run(choice, io: folder.url, loader: loader) { _ in },
      try await Drift.run(choice, io: folder.url, repeats: 2, loader: loader) { _ in },
    ]
  }

  @Test("one that fails is named, and the others keep their results")
  func oneFails() async throws {
    _ = try folder.read()
    for report in try await reports(choice, without(.cpuAndGPU)) {
      let (failed) = try #require(report.failures.first)
      #expect(report.failures.count == 1 && failed.computeUnits == .cpuAndGPU)
      #expect(failed.failure.contains("units 1 are out of order"))
      let worked: [ComputeUnits] = [.cpuOnly, .cpuAndNeuralEngine, .all]
      #expect(report.runs.map { $0.map(\.computeUnits) == worked } ?? true)
      #expect(report.drift.map { $0.runs.map(\.computeUnits) == worked } ?? true)
      #expect(report.drift.map { $0.againstCpu.count == 2 } ?? true)
      if let validation = report.validation {
        #expect(validation.results.map(\.computeUnits) == worked)
        #expect(validation.results.allSatisfy { $0.verdict == .pass })
        #expect(validation.verdict == .fail && !validation.missedLimit)
      }
      #expect(try SchemaCheck().complaints(report.json()) == [])
    }
  }

  @Test("where the first one fails the report is of the next")
  func firstFails() async throws {
    let report = try await Drift.run(
      choice, io: nil, repeats: 2, loader: without(.cpuOnly)
    ) { _ in }
    #expect(report.model.inputs.map(\.name) == ["x"])
    #expect(report.drift?.againstCpu == [])
    #expect(report.failures.map(\.computeUnits) == [.cpuOnly])
  }

  @Test("where all fail it is an error, with every reason once")
  func allFail() async throws {
    let none = without(.cpuOnly, .cpuAndGPU, .cpuAndNeuralEngine, .all)
    let error = try await #require(throws: ModelFault.self) {
      try await Drift.run(choice, io: nil, repeats: 2, loader: none) { _ in }
    }
    for units in 0...3 { #expect(error.localizedDescription.contains("units \(units) are out")) }
    let same = ModelLoader { _, _ in throw Refused(units: .all) }
    let once = try await #require(throws: ModelFault.self) {
      try await Drift.run(choice, io: nil, repeats: 2, loader: same) { _ in }
    }
    let path = try AffineModel.url().lastPathComponent
    #expect(once == .load(path: path, reason: "units 2 are out of order"))
  }

  @Test("a bundle of another model is refused at once, not once for each")
  func foreignBundle() async throws {
    folder.change("output", "name", to: "z")
    _ = try folder.read()
    let loads = Mutex(0)
    let counting = ModelLoader { url, configuration in
      loads.withLock { $0 += 1 }
      return try MLModel(contentsOf: url, configuration: configuration)
    }
    await #expect(throws: BundleError.self) {
      try await Validate.run(choice, io: folder.url, loader: counting) { _ in }
    }
    #expect(loads.withLock { $0 } == 1)
  }

  @Test("no model is left in memory when the next compute units load theirs")
  func oneAtATime() async throws {
    _ = try folder.read()
    let census = Census()
    let loader = ModelLoader { url, configuration in
      let model = try MLModel(contentsOf: url, configuration: configuration)
      census.add(model, configuration.computeUnits)
      return model
    }
    _ = try await reports(choice, loader)
    #expect(census.loads == 4 * (2 + 1 + 1))
    #expect(census.foreign == 0)
  }

  @Test("first calls are apart from the samples, after loading and after a pause")
  func firstCalls() async throws {
    let settings = Bench.Settings(iterations: 5, warmup: 0, idle: 0.05)
    let one = ModelChoice(path: choice.path, units: [.cpuOnly])
    let report = try await Bench.run(one, io: nil, settings: settings) { _ in }
    let run = try #require(report.runs?.first)
    #expect(run.samplesMs.count == 5 && run.latency.count == 5)
    #expect(run.firstCalls.afterLoadMs.count == FirstCalls.count)
    #expect(run.firstCalls.idleS == 0.05)
    #expect(run.firstCalls.afterIdleMs.count == FirstCalls.count)
  }
}

/// Models that were loaded, without holding them.
private final class Census: @unchecked Sendable {
  private struct Entry {
    weak var model: MLModel?
    let units: MLComputeUnits
  }

  private let lock = NSLock()
  private var entries: [Entry] = []
  /// How often a model of other compute units was still there when one was loaded.
  private(set) var foreign = 0
  var loads: Int { entries.count }

  func add(_ model: MLModel, _ units: MLComputeUnits) {
    lock.withLock {
      foreign += entries.count { $0.model != nil && $0.units != units }
      entries.append(Entry(model: model, units: units))
    }
  }
}
