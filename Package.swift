// swift-tools-version: 6.0
import PackageDescription

// For apps, which depend on this repository by its URL: SwiftPM reads a manifest at the root only.
// It offers the library FluxVAE alone. To work on the Swift sources, use the one in swift/.
//
// Apple's own Core ML is used wherever it exists; see swift/Package.swift for the module on Linux.
#if os(Linux)
  let coreML: [Target.Dependency] = ["CoreML"]
  let linuxOnly: [Target] = [
    .target(name: "CoreML", path: "swift/Sources/CoreML", exclude: ["README.md"])
  ]
#else
  let coreML: [Target.Dependency] = []
  let linuxOnly: [Target] = []
#endif

let package = Package(
  name: "fluxvae",
  platforms: [.macOS(.v15), .iOS(.v18)],
  products: [.library(name: "FluxVAE", targets: ["FluxVAE"])],
  targets: [
    .target(name: "FluxVAE", dependencies: coreML, path: "swift/Sources/FluxVAE")
  ] + linuxOnly,
  swiftLanguageModes: [.v6]
)
