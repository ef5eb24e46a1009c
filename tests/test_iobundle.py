"""The same request gives the same bytes; whatever is not exactly a bundle is refused."""

import hashlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch

from fluxvae.data.latents import Latent
from fluxvae.data.photos import EVALUATION_PHOTOS, photo_image
from fluxvae.device.bundle import Bundle, Request, export_bundle, read_bundle
from fluxvae.errors import BundleError, LatentError, OutputError, UsageError
from fluxvae.networks.build import build_decoder, build_encoder
from fluxvae.networks.weights import Weights, load_weights
from fluxvae.recipes import Size, parse_label
from fluxvae.records.manifest import MANIFEST
from fluxvae.validation.validate import limit_for
from tests.artifacts import normal_latent, recipe
from tests.packages import tree

SCHEMA = Path(__file__).resolve().parents[1] / "docs" / "io.schema.json"
SMALL = Size(64, 96)  # not square: a swapped height and width would show


@pytest.fixture(scope="module")
def bundle(weights: Weights, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Noise, NHWC, float32."""
    out = tmp_path_factory.mktemp("io") / "bundle"
    return export_bundle(weights, Request(SMALL, "nhwc"), out)


@pytest.fixture
def damaged(bundle: Bundle, tmp_path: Path) -> Callable[..., Path]:
    """``damaged(change)``: a copy of the bundle after ``change(folder)``."""

    def make(change: Callable[[Path], object]) -> Path:
        folder = tmp_path / "copy"
        folder.mkdir()
        for file in bundle.path.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        change(folder)
        return folder

    return make


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest in place."""
    content = json.loads((folder / MANIFEST).read_text())
    change(content)
    (folder / MANIFEST).write_text(json.dumps(content))


def test_files_hold_what_the_manifest_says_little_endian_in_c_order(
    bundle: Bundle, weights: Weights
) -> None:
    manifest = json.loads((bundle.path / MANIFEST).read_text())
    latent = np.fromfile(bundle.path / "input.bin", "<f4").reshape(1, 8, 12, 32)
    planes = np.random.Generator(np.random.PCG64(0)).standard_normal((1, 32, 8, 12), np.float32)
    assert np.array_equal(latent, planes.transpose(0, 2, 3, 1))
    with torch.no_grad():
        exact = build_decoder(weights).double()(torch.from_numpy(planes).double()).numpy()
    image = np.fromfile(bundle.path / "output.bin", "<f4").reshape(1, 64, 96, 3)
    assert np.array_equal(image, exact.transpose(0, 2, 3, 1).astype(np.float32))
    for part, file in (("input", "input.bin"), ("output", "output.bin")):
        digest = hashlib.sha256((bundle.path / file).read_bytes()).hexdigest()
        assert manifest[part]["sha256"] == digest
    assert manifest["size"] == "64x96"
    assert manifest["weights"] == {"source": "demo", "digest": weights.digest}


@pytest.mark.parametrize(
    ("layout", "case", "precision"),
    [("nchw", "normal", "float16"), ("nhwc", "coffee", "float32"), ("nchw", "file", "float32")],
)
def test_manifest_keeps_to_the_published_schema(
    weights: Weights, encoder: Weights, tmp_path: Path, layout: str, case: str, precision: str
) -> None:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    own = Latent("file", normal_latent(32, SMALL, seed=3)) if case == "file" else None
    request = Request(SMALL, layout, case, 0, precision, own, "0" * 64 if own else None)
    made = export_bundle(weights, request, tmp_path / "io", encoder=encoder)
    jsonschema.validate(json.loads((made.path / MANIFEST).read_text()), schema)
    again = read_bundle(made.path)
    assert again.manifest == made.manifest
    assert np.array_equal(again.input, made.input)
    assert np.array_equal(again.output, made.output)
    assert again.input.dtype == precision


def test_schema_refuses_what_the_reader_refuses(damaged: Callable[..., Path]) -> None:
    schema = json.loads(SCHEMA.read_text(encoding="utf-8"))
    for key, value in (
        ("version", 2),
        ("size", "big"),
        ("extra", 1),
        ("source", {"kind": "normal", "seed": "0", "generator": "x"}),
        ("weights", {"source": "demo", "digest": "xyz"}),
    ):
        content = json.loads((damaged_copy := damaged(lambda _: None) / MANIFEST).read_text())
        content[key] = value
        damaged_copy.write_text(json.dumps(content))
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(content, schema)
        with pytest.raises(BundleError):
            read_bundle(damaged_copy.parent)
        for file in damaged_copy.parent.iterdir():
            file.unlink()
        damaged_copy.parent.rmdir()


def test_limits_are_those_of_validate(weights: Weights, encoder: Weights, tmp_path: Path) -> None:
    from fluxvae.artifact.record import make_record

    for case, kind in (("normal", "normal"), ("chelsea", "photo")):
        made = export_bundle(
            weights, Request(Size(64, 64), case=case), tmp_path / case, encoder=encoder
        )
        for precision in ("float16", "float32"):
            wanted = limit_for(make_record(recipe("flux2", precision=precision), weights), kind)
            limit = made.manifest.limits[precision]
            assert (limit.metric, limit.bound) == (wanted.metric, wanted.bound)


def test_limits_for_a_compressed_model_are_its_own(weights: Weights, tmp_path: Path) -> None:
    # docs/validation.md: the worst of 4-bit palettes on noise, 19.2 dB, less 3 dB
    request = Request(Size(64, 64), compression=parse_label("pal4-plain"))
    made = export_bundle(weights, request, tmp_path / "io")
    for limit in made.manifest.limits.values():
        assert limit.metric == "psnr_db"
        assert limit.bound == pytest.approx(16.2)


def test_photo_is_encoded_in_float64_and_rounded_once(
    weights: Weights, encoder: Weights, tmp_path: Path
) -> None:
    made = export_bundle(
        weights, Request(SMALL, "nchw", "coffee"), tmp_path / "io", encoder=encoder
    )
    (photo,) = (p for p in EVALUATION_PHOTOS if p.name == "coffee")
    pixels = torch.from_numpy(photo_image(photo, 64, 96)).double()
    with torch.no_grad():
        exact = build_encoder(encoder).double()(pixels).numpy()
        single = build_encoder(encoder)(pixels.float()).numpy()
    assert np.array_equal(made.input, exact.astype(np.float32))
    assert not np.array_equal(made.input, single)  # the test would see single precision


def test_image_of_a_float16_bundle_is_that_of_the_rounded_latent(
    weights: Weights, tmp_path: Path
) -> None:
    half = export_bundle(weights, Request(SMALL, io_precision="float16"), tmp_path / "half")
    assert half.input.dtype == np.float16
    assert half.output.dtype == np.float32  # a rounded reference would spoil the measure
    with torch.no_grad():
        rounded = torch.from_numpy(half.input.astype(np.float64))
        exact = build_decoder(weights).double()(rounded).numpy()
    assert np.array_equal(half.output, exact.astype(np.float32))


def test_seeds_and_layouts_differ_as_they_should(weights: Weights, tmp_path: Path) -> None:
    planes = export_bundle(weights, Request(SMALL, "nchw"), tmp_path / "a")
    last = export_bundle(weights, Request(SMALL, "nhwc"), tmp_path / "b")
    other = export_bundle(weights, Request(SMALL, "nchw", seed=1), tmp_path / "c")
    assert np.array_equal(planes.input.transpose(0, 2, 3, 1), last.input)
    assert np.array_equal(planes.output.transpose(0, 2, 3, 1), last.output)
    assert not np.array_equal(planes.input, other.input)


EXPORT = """
import sys
import torch
threads, onednn, out = int(sys.argv[1]), sys.argv[2] == "on", sys.argv[3]
torch.set_num_threads(threads)
torch.backends.mkldnn.enabled = onednn
from fluxvae.cli import main
for case in ("normal", "coffee"):
    try:
        main(["export-io", "--variant", "flux2", "--weights", "demo", "--size", "128x96",
              "--case", case, "--out", f"{out}/{case}"])
    except SystemExit as stop:
        assert not stop.code
"""


PLAIN = {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "ways",
    [
        pytest.param([(2, "off", PLAIN)], id="all-at-once"),
        pytest.param(
            [(1, "on", {}), (2, "on", {}), (1, "off", {}), (1, "on", PLAIN)],
            id="one-by-one",
            marks=pytest.mark.full,
        ),
    ],
)
def test_bytes_do_not_depend_on_threads_kernels_or_the_day(
    tmp_path: Path, ways: list[tuple[int, str, dict[str, str]]]
) -> None:
    """Must hold whatever torch computes with. Also with the plainest kernels of torch and MKL,
    which stand for another machine: their float64 sums differ by 3e-16, the float32 values not."""
    contents = {}
    for number, (threads, onednn, environment) in enumerate([(1, "on", {}), *ways]):
        out = tmp_path / str(number)
        command = [sys.executable, "-c", EXPORT, str(threads), onednn, str(out)]
        subprocess.run(command, check=True, capture_output=True, env={**os.environ, **environment})
        contents[number] = {f"{f.parent.name} {f.name}": f.read_bytes() for f in out.glob("*/*")}
    files = ("input.bin", "manifest.json", "output.bin")
    assert sorted(contents[0]) == [f"{c} {f}" for c in ("coffee", "normal") for f in files]
    assert all(content == contents[0] for content in contents.values())


def test_bytes_are_those_of_the_day_this_was_written(tmp_path: Path) -> None:
    """Random weights come from numpy by a seed, so nothing here depends on a file."""
    made = export_bundle(load_weights("flux1", "random:0"), Request(SMALL), tmp_path / "io")
    assert made.manifest.input.sha256 == PINNED_INPUT
    assert made.manifest.output.sha256 == PINNED_OUTPUT


PINNED_INPUT = "eaee9db42e6b830bd4eb3eac47790b7984613a12844e06fc1a8d9419b1ce4b39"
PINNED_OUTPUT = "5a15b83c784747e74137dab950b882ee311d0f1212ec40bace19b68c047d058e"


def test_nothing_is_replaced_unasked_nor_anything_that_is_no_bundle(
    weights: Weights, tmp_path: Path
) -> None:
    request = Request(Size(64, 64))
    precious = tmp_path / "home"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    for overwrite, why in ((False, "exists already"), (True, "is not an I/O bundle")):
        with pytest.raises(OutputError, match=why):
            export_bundle(weights, request, precious, overwrite=overwrite)
    assert (precious / "thesis.txt").read_text() == "years of work"
    out = tmp_path / "io"
    export_bundle(weights, request, out)
    with pytest.raises(OutputError, match="exists already"):
        export_bundle(weights, request, out)
    export_bundle(weights, Request(Size(64, 64), seed=1), out, overwrite=True)
    assert read_bundle(out).manifest.source["seed"] == 1


def test_failure_leaves_nothing(
    weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(tmp_path)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OutputError, match="no space left"):
        export_bundle(weights, Request(Size(64, 64)), tmp_path / "deep" / "io")
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda f: (f / MANIFEST).unlink(), "is not an I/O bundle"),
        (lambda f: (f / MANIFEST).write_text("{"), "is not the manifest"),
        (lambda f: (f / MANIFEST).write_text("[]"), "expected format"),
        (lambda f: (f / MANIFEST).write_bytes(b"\xff\xfe"), "text in UTF-8"),
        (lambda f: edit(f, lambda m: m.update(format="other")), "expected format"),
        (lambda f: edit(f, lambda m: m.update(version=2)), r"version 1, got .'fluxvae-io', 2"),
        (lambda f: edit(f, lambda m: m.pop("limits")), r"lacks \['limits'\]"),
        (lambda f: edit(f, lambda m: m.update(x=1)), r"unknown keys \['x'\]"),
        (lambda f: edit(f, lambda m: m.update(size="64,96")), "size should be one size"),
        (lambda f: edit(f, lambda m: m["input"].update(shape=[1, 8, 12])), "four positive"),
        (lambda f: edit(f, lambda m: m["input"].update(shape=[1, 8, 12, True])), "a whole number"),
        (lambda f: edit(f, lambda m: m["input"].update(dtype="float64")), "should be one of"),
        (lambda f: edit(f, lambda m: m["input"].update(layout=[])), "should be one of"),
        (lambda f: edit(f, lambda m: m["input"].update(file="../x.bin")), "bare file name"),
        (lambda f: edit(f, lambda m: m["limits"].update(float16={})), "limits.float16 lacks"),
        (lambda f: edit(f, lambda m: m["source"].update(kind="dream")), "source.kind should be"),
        (lambda f: edit(f, lambda m: m["input"].update(dtype="float16")), "12288 bytes; .* 6144"),
        (lambda f: (f / "output.bin").unlink(), "output.bin cannot be read"),
        (lambda f: (f / "output.bin").write_bytes(b"\0" * 100), "has 100 bytes; .* needs 73728"),
        (lambda f: (f / "input.bin").write_bytes(b"\0" * 12288), "is not what was exported"),
    ],
)
def test_whatever_is_no_whole_bundle_is_refused_in_one_line(
    damaged: Callable[..., Path], change: Callable[[Path], object], why: str
) -> None:
    with pytest.raises(BundleError, match=why) as caught:
        read_bundle(damaged(change))
    assert "\n" not in str(caught.value)


def put(folder: Path, part: str, index: int, value: float) -> None:
    """Change one value of a file, and its digest: an honest bundle of something else."""
    path = folder / f"{part}.bin"
    values = np.fromfile(path, "<f4")
    values[index] = value
    values.tofile(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    edit(folder, lambda m: m[part].update(sha256=digest))


@pytest.mark.parametrize("value", [np.nan, -np.inf])
@pytest.mark.parametrize("part", ["input", "output"])
def test_values_that_are_not_finite_are_refused(
    damaged: Callable[..., Path], part: str, value: float
) -> None:
    with pytest.raises(BundleError, match=f"{part}.bin holds NaN or infinity"):
        read_bundle(damaged(lambda f: put(f, part, 5, value)))


@pytest.mark.parametrize(
    ("metric", "bound"),
    [("psnr_db", b) for b in (-1e9, 0, 200.5, math.nan, math.inf, -math.inf, 10**400)]
    + [("max_abs", b) for b in (-1e-3, 0.0, 2.5, 1e30, math.nan, math.inf)],
)
def test_a_bound_that_passes_everything_or_nothing_is_wrong_usage(
    damaged: Callable[..., Path], metric: str, bound: float
) -> None:
    limit = {"metric": metric, "bound": bound}
    with pytest.raises(UsageError, match=f"limits.float16: expected a bound on {metric}") as caught:
        read_bundle(damaged(lambda f: edit(f, lambda m: m["limits"].update(float16=limit))))
    assert "\n" not in str(caught.value)


def test_a_bound_at_the_end_of_its_range_is_taken(damaged: Callable[..., Path]) -> None:
    ends = {
        "float16": {"metric": "psnr_db", "bound": 200},
        "float32": {"metric": "max_abs", "bound": 2},
    }
    assert read_bundle(damaged(lambda f: edit(f, lambda m: m.update(limits=ends))))


def test_requests_for_what_does_not_exist_are_refused(weights: Weights, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown case 'mona-lisa'; known: normal, chelsea"):
        Request(SMALL, case="mona-lisa")
    with pytest.raises(UsageError, match="needs an encoder, and none belongs"):
        export_bundle(weights, Request(SMALL, case="coffee"), tmp_path / "io")
    small = Latent("mine", normal_latent(32, Size(64, 64)))
    with pytest.raises(LatentError, match=r"\[1, 32, 8, 8\]; an image of 64x96 needs"):
        export_bundle(weights, Request(SMALL, latent=small), tmp_path / "io")
