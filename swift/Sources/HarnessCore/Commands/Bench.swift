@preconcurrency import CoreML
import Foundation

/// `bench`: load times, first calls, then timed predictions, every sample kept.
public enum Bench {
  /// How often, and under which rule.
  public struct Settings: Equatable, Sendable {
    public let iterations: Int
    public let warmup: Int
    /// Seconds of pause before the first calls after it; nil for what the compute units need.
    public let idle: Double?
    public let strictHost: Bool

    public init(
      iterations: Int = 200, warmup: Int = FirstCalls.count, idle: Double? = nil,
      strictHost: Bool = false
    ) {
      self.iterations = max(iterations, 1)
      self.warmup = max(warmup, FirstCalls.count)
      self.idle = idle.map { max($0, 0) }
      self.strictHost = strictHost
    }

    /// Only a Neural Engine is known to sleep: nobody else waits for it.
    func pause(_ units: ComputeUnits, devices: [Device]) -> Double {
      let sleeps = units.allowNeuralEngine && devices.contains(.neuralEngine)
      return idle ?? (sleeps ? FirstCalls.sleepsAfter : 0)
    }
  }

  /// - Parameters:
  ///   - folder: of a bundle whose input is fed; nil makes numbers up.
  ///   - progress: gets a line when something slow starts.
  /// - Throws: `HostError.noisy` under the strict rule, else as `Validate.run`.
  public static func run(
    _ choice: ModelChoice, io folder: URL?, settings: Settings, loader: ModelLoader = .coreML,
    progress: (String) -> Void
  ) async throws -> Report {
    let before = Moment.now()
    if settings.strictHost { try refuseNoise(before) }
    let bundle = try folder.map { try IOBundle(folder: $0) }
    let each = try await EachUnit(choice.units) { units in
      progress("bench on \(units.rawValue): load, \(settings.warmup) + \(settings.iterations)")
      return try await measure(choice, bundle, units, settings, loader)
    }
    let described = each.results[0].described
    let after = Moment.now()
    if settings.strictHost { try refuseNoise(after, loadToo: false) }
    return Report(
      command: .bench, model: await choice.report(described.function, described.interface),
      environment: .here(before: before, after: after), input: described.input,
      runs: each.results.map(\.run), failures: each.failures,
      notes: HostProbe.notes(choice.units) + notes(choice.units) + described.notes)
  }

  /// The model lives as long as this call.
  private static func measure(
    _ choice: ModelChoice, _ bundle: IOBundle?, _ units: ComputeUnits, _ settings: Settings,
    _ loader: ModelLoader
  ) async throws -> (run: BenchRun, described: Described) {
    let (model, shapes) = try await choice.open(bundle, units: units, loader: loader)
    let again = try LoadedModel(
      url: choice.url, function: model.function, units: units, loader: loader
    ).milliseconds
    let feed = try Feed(bundle: bundle, interface: model.interface, shapes: shapes)
    let input = try model.provider(feed.tensors)
    let afterLoad = try times(settings.warmup, model, input)
    let samples = try times(settings.iterations, model, input)
    guard let latency = Latency(samples) else {
      throw ModelFault.prediction(reason: "no prediction was asked for")
    }
    let pause = settings.pause(units, devices: HostProbe.devices)
    if pause > 0 { try await Task.sleep(for: .seconds(pause)) }
    let afterIdle = pause > 0 ? try times(FirstCalls.count, model, input) : []
    let run = BenchRun(
      computeUnits: units, load: .init(firstMs: model.milliseconds, secondMs: again),
      firstCalls: FirstCalls(afterLoadMs: afterLoad, idleS: pause, afterIdleMs: afterIdle),
      samplesMs: samples, latency: latency, peakMemoryBytes: HostProbe.peakMemory)
    return (run, Described(model, feed))
  }

  /// Not async, so that the synchronous `prediction` is the one that is timed.
  private static func times(
    _ count: Int, _ model: LoadedModel, _ input: MLDictionaryFeatureProvider
  ) throws -> [Double] {
    var times: [Double] = []
    times.reserveCapacity(count)
    for _ in 0..<count {
      times.append(try drained { try model.timedPrediction(input).milliseconds })
    }
    return times
  }

  /// After the run the load average holds our own work, so that it is no complaint then.
  private static func refuseNoise(_ moment: Moment, loadToo: Bool = true) throws(HostError) {
    var judged = moment
    if !loadToo { judged.loadAverage = nil }
    let complaints = StrictHost.complaints(
      judged, cores: ProcessInfo.processInfo.activeProcessorCount)
    guard complaints.isEmpty else { throw .noisy(complaints) }
  }

  private static func notes(_ units: [ComputeUnits]) -> [String] {
    var notes = [
      "The first load is cold only if the system's cache did not hold this model for this path."
    ]
    if units.count > 1 {
      notes.append("Peak memory is the process's: it includes the compute units run before.")
    }
    return notes
  }
}
