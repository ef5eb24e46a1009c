"""The Swift module CoreML on Linux against a program that Apple's own SDK type-checks."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.swift_toolchain import SwiftBuild

NEWER = """
import CoreML
import Foundation

func newer(_ model: MLModel, _ url: URL) async throws {
    let configuration = MLModelConfiguration()
    configuration.functionName = "main"
    configuration.optimizationHints.reshapeFrequency = .infrequent
    configuration.optimizationHints.specializationStrategy = .fastPrediction
    let asset = try MLModelAsset(url: url)
    let _: [String] = try await asset.functionNames
    let _: MLModelDescription = try await asset.modelDescription
    let _: MLModelDescription = try await asset.modelDescription(of: "main")
    let array = MLMultiArray(shape: [1, 2], dataType: .float16, strides: [32, 1])
    let input = try MLDictionaryFeatureProvider(dictionary: ["x": array])
    let _: any MLFeatureProvider = try await model.prediction(from: input)
    let _: any MLFeatureProvider = try await model.prediction(
        from: input, options: MLPredictionOptions())
    for device in MLModel.availableComputeDevices + MLComputeDevice.allComputeDevices {
        switch device {
        case .cpu: break
        case .gpu: break
        case .neuralEngine(let engine): let _: Int = engine.totalCoreCount
        default: break
        }
    }
    let plan = try await MLComputePlan.load(contentsOf: url, configuration: configuration)
    guard case .program(let program) = plan.modelStructure else { return }
    for function in program.functions.values {
        for operation in function.block.operations {
            let _: (String, Int) = (operation.operatorName, operation.blocks.count)
            let _: Double? = plan.estimatedCost(of: operation)?.weight
            let usage: MLComputePlan.DeviceUsage? = plan.deviceUsage(for: operation)
            let _: MLComputeDevice? = usage?.preferred
            let _: [MLComputeDevice]? = usage?.supported
        }
    }
}

func caught() {
    do {
        throw MLModelError(.io)
    } catch MLModelError.io {
    } catch {}
}
"""

APP = """
import FluxVAE

@MainActor
func show(_ decoder: LatentDecoder, _ latent: Latent) async throws -> DecodedImage {{
    try {call}
}}
"""


def typecheck(program: Path, modules: Path) -> subprocess.CompletedProcess[str]:
    """What the compiler says of a program that imports compiled modules."""
    common = ("-swift-version", "6", "-warnings-as-errors")
    return subprocess.run(
        ["swiftc", *common, "-typecheck", "-I", modules, program],
        capture_output=True,
        text=True,
        timeout=900,
    )


@pytest.fixture
def coreml(swift_build: SwiftBuild) -> Path:
    """The folder of the compiled modules, CoreML and FluxVAE among them."""
    if sys.platform != "linux":
        pytest.skip("the module CoreML is for Linux; here Apple's own is used")
    return swift_build.modules


@pytest.mark.slow
def test_a_program_that_apples_sdk_takes_compiles_unchanged(shared: Path, coreml: Path) -> None:
    program = shared / "reference" / "coreml-api-check.swift"
    if not program.is_file():
        pytest.skip(f"the program is not on this machine (looked for {program})")
    done = typecheck(program, coreml)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_declarations_newer_than_that_sdk_compile_as_documented(
    coreml: Path, tmp_path: Path
) -> None:
    program = tmp_path / "newer.swift"
    program.write_text(NEWER)
    done = typecheck(program, coreml)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_a_blocking_form_does_not_compile_in_a_task(coreml: Path, tmp_path: Path) -> None:
    """A decode that freezes the thread of a task, or the main actor's, has a name that says so."""
    program = tmp_path / "app.swift"
    for call, refusal in (
        ("await decoder.decode(latent)", None),
        ("decoder.decode(latent)", "not marked with 'await'"),
        ("decoder.decodeBlocking(latent)", "blocks its thread: await decode(_:)"),
    ):
        program.write_text(APP.format(call=call))
        done = typecheck(program, coreml)
        assert (done.returncode == 0) == (refusal is None), done.stderr
        assert refusal is None or refusal in done.stderr


@pytest.mark.slow
def test_a_misspelt_case_does_not_compile(coreml: Path, tmp_path: Path) -> None:
    """The two above can fail."""
    program = tmp_path / "wrong.swift"
    program.write_text(NEWER.replace(".infrequent", ".seldom"))
    assert "seldom" in typecheck(program, coreml).stderr
