/// What a report says of the model and its input: of a run that is over, so without the model.
struct Described {
  let function: String?
  let interface: Interface
  let input: InputReport
  let notes: [String]

  init(_ model: LoadedModel, _ feed: Feed) {
    function = model.function
    interface = model.interface
    input = feed.report
    notes = feed.notes
  }
}
