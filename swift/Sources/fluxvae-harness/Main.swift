/// Placeholder until branch core fills this target.
@main
enum Main {
  static func main() {}
}
