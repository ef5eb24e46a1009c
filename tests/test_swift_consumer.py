"""An app that depends on this repository by its URL, with the lines swift/README.md gives it."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from fluxvae.artifact.backends import make_runner
from fluxvae.data.arrays import pixels
from fluxvae.device.compile import compile_model
from fluxvae.mil.package import read_package
from fluxvae.networks.catalog import demo_contract, find_decoder
from fluxvae.recipes import Size
from tests.artifacts import normal_latent
from tests.swift_toolchain import QUICK, ROOT, needs_swift, run, run_swift

pytestmark = [pytest.mark.slow, needs_swift]

MANIFEST = """\
// swift-tools-version: 6.0
import PackageDescription

let package = Package(
  name: "App",
  platforms: [.macOS(.v15)],
  dependencies: [.package(url: "{url}", revision: "{revision}")],
  targets: [
    .executableTarget(name: "App", dependencies: [.product(name: "FluxVAE", package: "fluxvae")])
  ]
)
"""
# What the app does with the README's lines: a file of floats in, a file of pixels out.
MAIN = """\
import Foundation

let paths = CommandLine.arguments.dropFirst().map { URL(filePath: $0) }
let floats = try Data(contentsOf: paths[1]).withUnsafeBytes { Array($0.bindMemory(to: Float.self)) }
let pixels = try await Preview(model: paths[0]).pixels(of: floats)
try Data(pixels).write(to: paths[2])
"""


@dataclass(frozen=True)
class Clone:
    """A fresh clone of what is committed here, as an app would fetch it."""

    path: Path
    revision: str


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout, so there is no URL to depend on")
    path = tmp_path_factory.mktemp("remote") / "fluxvae"
    run(["git", "clone", "--quiet", ROOT.as_uri(), str(path)], ROOT)
    revision = run(["git", "rev-parse", "HEAD"], path).strip()
    assert revision == run(["git", "rev-parse", "HEAD"], ROOT).strip()
    return Clone(path, revision)


def test_the_root_offers_the_library_alone(clone: Clone) -> None:
    text = run_swift("package", "--package-path", clone.path, "dump-package")
    products = json.loads(text)["products"]
    assert [p["name"] for p in products] == ["FluxVAE"]
    assert "library" in products[0]["type"]


def test_an_app_decodes_with_the_ten_lines_of_the_readme(
    clone: Clone, demo_artifact: Callable[..., Path], tmp_path: Path
) -> None:
    package = demo_artifact("flux2", "64")
    model = compile_model(package, tmp_path / "decoder.mlmodelc")
    contract = demo_contract(find_decoder("flux2"))
    app = tmp_path / "app"
    sources = app / "Sources" / "App"
    sources.mkdir(parents=True)
    url = clone.path.as_uri()
    (app / "Package.swift").write_text(MANIFEST.format(url=url, revision=clone.revision))
    (sources / "Preview.swift").write_text(_readme_lines(contract.space))
    (sources / "main.swift").write_text(MAIN)
    latent = normal_latent(contract.channels, Size(64, 64))
    latent.tofile(tmp_path / "latent.f32")

    folders = [f"--{name}-path={tmp_path / name}" for name in ("cache", "config", "security")]
    run_swift("build", *QUICK, *folders, cwd=app)
    program = app / ".build" / "debug" / "App"
    run([str(program), str(model), "latent.f32", "pixels.rgb"], tmp_path)

    image = make_runner(read_package(package), None, "nchw", "reference")(latent)
    found = np.fromfile(tmp_path / "pixels.rgb", np.uint8)
    assert np.array_equal(found, pixels(image).ravel())


def _readme_lines(space: str) -> str:
    """The README's Swift code, for the demo decoder: its latent space and 64 px instead of 768."""
    readme = (ROOT / "swift" / "README.md").read_text()
    (code,) = re.findall(r"```swift\n(import FluxVAE\n.*?)```", readme, re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    for words, instead in (
        (".flux2SamplerUnpatchified", f'LatentSpace(rawValue: "{space}")'),
        ("height: 96, width: 96", "height: 8, width: 8"),
    ):
        assert code.count(words) == 1
        code = code.replace(words, instead)
    return code
