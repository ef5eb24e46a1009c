@preconcurrency import CoreML
import Foundation

/// `bench`: load times, warm-up, then timed predictions, every sample kept.
public enum Bench {
  /// How often, and under which rule.
  public struct Settings: Equatable, Sendable {
    public let iterations: Int
    public let warmup: Int
    public let strictHost: Bool

    public init(iterations: Int = 200, warmup: Int = 3, strictHost: Bool = false) {
      self.iterations = max(iterations, 1)
      self.warmup = max(warmup, 0)
      self.strictHost = strictHost
    }
  }

  /// - Parameters:
  ///   - folder: of a bundle whose input is fed; nil makes numbers up.
  ///   - progress: gets a line when something slow starts.
  /// - Throws: `HostError.noisy` under the strict rule, else as `Validate.run`.
  public static func run(
    _ choice: ModelChoice, io folder: URL?, settings: Settings, progress: (String) -> Void
  ) async throws -> Report {
    let before = Moment.now()
    if settings.strictHost { try refuseNoise(before) }
    let bundle = try folder.map { try IOBundle(folder: $0) }
    var runs: [BenchRun] = []
    var described: (LoadedModel, InputReport)?
    for units in choice.units {
      progress("bench on \(units.rawValue): load, \(settings.warmup) + \(settings.iterations)")
      let (first, shapes) = try await choice.open(bundle, units: units)
      let second = try LoadedModel(url: choice.url, function: first.function, units: units)
      let feed = try Feed(bundle: bundle, interface: first.interface, shapes: shapes)
      let load = BenchRun.Load(firstMs: first.milliseconds, secondMs: second.milliseconds)
      runs.append(try measure(first, feed, settings, load: load))
      described = described ?? (first, feed.report)
    }
    guard let (model, input) = described else { throw ModelFault.missing(path: choice.path) }
    let after = Moment.now()
    if settings.strictHost { try refuseNoise(after, loadToo: false) }
    return Report(
      .bench, model: await choice.report(model), environment: .here(before: before, after: after),
      input: input, runs: runs, notes: HostProbe.notes(choice.units) + notes(choice.units))
  }

  /// Not async, so that the synchronous `prediction` is the one that is timed.
  private static func measure(
    _ model: LoadedModel, _ feed: Feed, _ settings: Settings, load: BenchRun.Load
  ) throws -> BenchRun {
    let input = try model.provider(feed.tensors)
    func times(_ count: Int) throws -> [Double] {
      var times: [Double] = []
      times.reserveCapacity(count)
      for _ in 0..<count {
        times.append(try drained { try model.timedPrediction(input).milliseconds })
      }
      return times
    }
    let warmup = try times(settings.warmup)
    let samples = try times(settings.iterations)
    guard let latency = Latency(samples) else {
      throw ModelFault.prediction(reason: "no prediction was asked for")
    }
    return BenchRun(
      computeUnits: model.units, load: load, firstPredictionMs: warmup.first, warmupMs: warmup,
      samplesMs: samples, latency: latency, peakMemoryBytes: HostProbe.peakMemory)
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
