// swift-tools-version: 6.0
import PackageDescription

// Apple's own Core ML is used wherever it exists. Linux gets a module of the same name from
// Sources/CoreML. The condition must stand here, in the manifest, which is compiled for the host:
// on a Mac a target called CoreML would hide the framework.
#if os(Linux)
  let coreML: [Target.Dependency] = ["CoreML"]
  let linuxOnly: [Target] = [
    .target(name: "CoreML", exclude: ["README.md"]),
    .testTarget(name: "CoreMLTests", dependencies: ["CoreML", "TestSupport"]),
  ]
#else
  let coreML: [Target.Dependency] = []
  let linuxOnly: [Target] = []
#endif

let package = Package(
  name: "fluxvae",
  platforms: [.macOS(.v15)],
  products: [
    .library(name: "FluxVAE", targets: ["FluxVAE"]),
    .library(name: "HarnessCore", targets: ["HarnessCore"]),
    .executable(name: "fluxvae-harness", targets: ["fluxvae-harness"]),
  ],
  targets: [
    .target(name: "FluxVAESupport"),
    .target(name: "HarnessCore", dependencies: ["FluxVAESupport"] + coreML),
    .executableTarget(name: "fluxvae-harness", dependencies: ["HarnessCore"] + coreML),
    .target(name: "FluxVAE", dependencies: ["FluxVAESupport"] + coreML),
    .testTarget(
      name: "HarnessCoreTests",
      dependencies: ["HarnessCore", "FluxVAESupport", "TestSupport"] + coreML),
    .testTarget(name: "HarnessTests", dependencies: ["fluxvae-harness", "HarnessCore"] + coreML),
    .target(name: "TestSupport", path: "Tests/TestSupport", exclude: ["make_models.py"]),
    .testTarget(
      name: "FluxVAETests", dependencies: ["FluxVAE", "FluxVAESupport", "TestSupport"] + coreML),
  ] + linuxOnly,
  swiftLanguageModes: [.v6]
)
