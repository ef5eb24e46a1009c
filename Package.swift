// swift-tools-version: 6.0
import PackageDescription

// For apps, which depend on this repository by its URL: SwiftPM reads a manifest at the root only.
// It offers the library FluxVAE alone. To work on the Swift sources, use the one in swift/.
let library = Target.target(
  name: "FluxVAE", dependencies: ["FluxVAESupport"], path: "swift/Sources/FluxVAE")
var targets = [
  library, .target(name: "FluxVAESupport", path: "swift/Sources/FluxVAESupport"),
]
// Apple's own Core ML is used wherever it exists; see swift/Package.swift for the module on Linux.
#if os(Linux)
  library.dependencies.append("CoreML")
  targets.append(.target(name: "CoreML", path: "swift/Sources/CoreML", exclude: ["README.md"]))
#endif

let package = Package(
  name: "fluxvae",
  platforms: [.macOS(.v15), .iOS(.v18)],
  products: [.library(name: "FluxVAE", targets: ["FluxVAE"])],
  targets: targets,
  swiftLanguageModes: [.v6]
)
