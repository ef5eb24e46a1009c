"""Shared fixtures. Real weights and upstream's outputs live beside the checkout, never in it."""

import gc
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from tests.conversion_folder import FOLDER, prune

if TYPE_CHECKING:
    from fluxvae.networks.weights import Weights
    from tests.swift_toolchain import SwiftBuild

SHARED = Path(__file__).resolve().parents[2] / "shared"

# For torch and numpy, here, in xdist's workers and in children: pictures are small, and threads of
# several processes on the same cores wait for each other. tests/test_calibration.py takes 13 CPU
# seconds with one thread, 44 with two.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Python's own 700 make thousands of collections in which nothing is found: a tenth of the time.
gc.set_threshold(100_000, 20, 10)


def pytest_collection_finish(session: pytest.Session) -> None:
    """gc.freeze() the collected tests, and keep coremltools 9.0 from running gc.collect() after
    each conversion: among thousands of tests that took longer than to convert one operation.

    The first of several workers begins to build what Swift tests need, so that none waits for it.
    """
    cache = getattr(session.config, "cache", None)  # not there with -p no:cacheprovider
    used = any("swift_build" in getattr(item, "fixturenames", ()) for item in session.items)
    if used and cache is not None and os.environ.get("PYTEST_XDIST_WORKER") == "gw0":
        from tests.swift_toolchain import TROUBLE, build_package

        folder = Path(cache.mkdir("fluxvae-swift"))
        if TROUBLE is None:
            threading.Thread(target=build_package, args=[folder], daemon=True).start()
    gc.collect()
    gc.freeze()
    if converters := sys.modules.get("coremltools.converters._converters_entry"):
        converters.gc = SimpleNamespace(collect=lambda: None)  # type: ignore[attr-defined]


@pytest.fixture(scope="session", autouse=True)
def conversions_folder(
    tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[None]:
    """Where tests.conversion_cache keeps its entries: in pytest's cache, for all runs."""
    cache = getattr(pytestconfig, "cache", None)  # not there with -p no:cacheprovider
    folder = cache.mkdir("conversions") if cache else tmp_path_factory.mktemp("conversions")
    os.environ[FOLDER] = str(folder)
    yield
    del os.environ[FOLDER]


@pytest.fixture(scope="session", autouse=True)
def user_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """``fluxvae``'s cache folder, for children too, instead of the user's own (which it stays on
    macOS: no variable moves it there).

    Others whose caches follow the same variable keep theirs.
    """
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    with pytest.MonkeyPatch.context() as patch:
        for name, folder in (("HF_HOME", "huggingface"), ("TORCH_HOME", "torch")):
            if name not in os.environ:
                patch.setenv(name, str(home / folder))
        cache = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(cache))
        yield cache / "fluxvae"


def pytest_runtest_setup() -> None:
    """Convert by way of the cache, from when a test may convert: that needs torch."""
    if "torch" in sys.modules:
        from tests.conversion_cache import install

        install()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Bound the conversion cache, once all of xdist's workers are done."""
    cache = getattr(session.config, "cache", None)
    if cache and "PYTEST_XDIST_WORKER" not in os.environ:
        prune(cache.mkdir("conversions"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with real TAEF1/TAEF2 ``weights/`` and upstream's ``golden/`` outputs."""
    if not (SHARED / "weights").is_dir():
        pytest.skip(f"real weights are not on this machine (looked for {SHARED / 'weights'})")
    return SHARED


@pytest.fixture(scope="session")
def weights() -> "Weights":
    """flux2's demo decoder: of the two, the one with more kinds of operations."""
    from fluxvae.networks.weights import load_weights

    return load_weights("flux2", "demo")


@pytest.fixture(scope="session")
def encoder() -> "Weights":
    """flux2's demo encoder."""
    from fluxvae.networks.weights import load_weights

    return load_weights("flux2", "demo", part="encoder")


@pytest.fixture(scope="session")
def demo_artifact(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``demo_artifact(variant, sizes, **recipe fields)``: a demo decoder's artifact, made once.

    Shared by all tests: copy it before changing it.
    """
    from fluxvae.networks.weights import load_weights
    from tests.artifacts import recipe, save

    made: dict[object, Path] = {}
    folder = tmp_path_factory.mktemp("demo-artifacts")

    def make(variant: str = "flux2", sizes: str = "64", **fields: object) -> Path:
        wanted = recipe(variant, sizes, **fields)
        if wanted not in made:
            made[wanted] = save(load_weights(variant, "demo"), wanted, folder)
        return made[wanted]

    return make


@pytest.fixture(scope="session")
def demo_package(demo_artifact: Callable[..., Path]) -> Path:
    """flux2's demo decoder at 64 x 64, float16."""
    return demo_artifact()


@pytest.fixture(scope="session")
def demo_latents(encoder: "Weights", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of two photo latents for ``demo_package``, from flux2's demo encoder."""
    import torch
    from safetensors.torch import save_file

    from fluxvae.data.latents import space_metadata
    from fluxvae.data.photos import EVALUATION_PHOTOS, photo_image
    from fluxvae.networks.build import build_encoder

    encode = build_encoder(encoder)
    path = tmp_path_factory.mktemp("latents") / "photos.safetensors"
    photos = {p.name: torch.from_numpy(photo_image(p, 64, 64)) for p in EVALUATION_PHOTOS}
    latents = {name: encode(image) for name, image in photos.items()}
    save_file(latents, path, space_metadata(encoder.contract))
    return path


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, the only one on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of tests/fake_cell.py, which stands in for the processes of a matrix's cells."""
    from tests.fake_cell import install

    for name, value in install(tmp_path / "fake").items():
        monkeypatch.setenv(name, value)
    return tmp_path / "fake"


@pytest.fixture(scope="session")
def swift_build(pytestconfig: pytest.Config) -> "SwiftBuild":
    """swift/ and its tests, built once for everybody. Kept between test runs."""
    from tests.swift_toolchain import TROUBLE, build_package

    if TROUBLE is not None:
        pytest.skip(TROUBLE)
    assert pytestconfig.cache is not None
    return build_package(Path(pytestconfig.cache.mkdir("fluxvae-swift")))


@pytest.fixture(scope="session")
def harness_program(swift_build: "SwiftBuild") -> Path:
    """The built fluxvae-harness, not optimised. tests/test_swift_bridge.py can have a user's."""
    return swift_build.harness
