"""The Swift module CoreML on Linux against a program that Apple's own SDK type-checks."""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[1] / "swift" / "Sources" / "CoreML"
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


def swiftc(*arguments: str | Path, folder: Path) -> subprocess.CompletedProcess[str]:
    common: Sequence[str | Path] = ("-swift-version", "6", "-warnings-as-errors")
    return subprocess.run(
        ["swiftc", *common, *arguments], cwd=folder, capture_output=True, text=True, timeout=900
    )


@pytest.fixture(scope="module")
def coreml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the compiled module."""
    if shutil.which("swiftc") is None:
        pytest.skip("no Swift toolchain: swiftc is not on PATH")
    if sys.platform != "linux":
        pytest.skip("the module CoreML is for Linux; here Apple's own is used")
    folder = tmp_path_factory.mktemp("coreml")
    made = swiftc(
        "-emit-module",
        *("-module-name", "CoreML", "-o", folder / "CoreML.swiftmodule"),
        *sorted(SOURCES.rglob("*.swift")),
        folder=folder,
    )
    assert made.returncode == 0, made.stderr
    return folder


@pytest.mark.slow
def test_a_program_that_apples_sdk_takes_compiles_unchanged(shared: Path, coreml: Path) -> None:
    program = shared / "reference" / "coreml-api-check.swift"
    if not program.is_file():
        pytest.skip(f"the program is not on this machine (looked for {program})")
    done = swiftc("-typecheck", "-I", coreml, program, folder=coreml)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_declarations_newer_than_that_sdk_compile_as_documented(coreml: Path) -> None:
    program = coreml / "newer.swift"
    program.write_text(NEWER)
    done = swiftc("-typecheck", "-I", coreml, program, folder=coreml)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_a_blocking_form_does_not_compile_in_a_task(coreml: Path) -> None:
    """A decode that freezes the thread of a task, or the main actor's, has a name that says so."""
    made = swiftc(
        "-emit-module",
        *("-module-name", "FluxVAE", "-I", coreml, "-o", coreml / "FluxVAE.swiftmodule"),
        *sorted((SOURCES.parent / "FluxVAE").glob("*.swift")),
        folder=coreml,
    )
    assert made.returncode == 0, made.stderr
    program = coreml / "app.swift"
    for call, refusal in (
        ("await decoder.decode(latent)", None),
        ("decoder.decode(latent)", "not marked with 'await'"),
        ("decoder.decodeBlocking(latent)", "blocks its thread: await decode(_:)"),
    ):
        program.write_text(APP.format(call=call))
        done = swiftc("-typecheck", "-I", coreml, program, folder=coreml)
        assert (done.returncode == 0) == (refusal is None), done.stderr
        assert refusal is None or refusal in done.stderr


@pytest.mark.slow
def test_a_misspelt_case_does_not_compile(coreml: Path) -> None:
    """The two above can fail."""
    program = coreml / "wrong.swift"
    program.write_text(NEWER.replace(".infrequent", ".seldom"))
    assert "seldom" in swiftc("-typecheck", "-I", coreml, program, folder=coreml).stderr
