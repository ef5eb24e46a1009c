"""Compressions that were solved before: the same bytes of artifact, without solving again."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from fluxvae import compress as solvers
from fluxvae.artifact.save import save_artifact
from fluxvae.compress import compress
from fluxvae.compress.checkpoint import digest_of
from fluxvae.compress.forms import CompressedDecoder
from fluxvae.compress.mixed import Allocation
from fluxvae.compress.store import Store, key_of
from fluxvae.compress.w8a8 import Effort, quantize_w8a8
from fluxvae.data.calibration import Calibration, calibration_of
from fluxvae.networks.build import build_decoder
from fluxvae.networks.structure import conv_sites
from fluxvae.networks.weights import load_weights
from fluxvae.recipes import Recipe, artifact_name, parse_label, parse_sizes
from tests.artifacts import normal_latent

WEIGHTS = load_weights("flux2", "demo")
SEEN = calibration_of("photos", [normal_latent(WEIGHTS.contract.channels, parse_sizes("64")[0])])
QUICK = "int8-plain"


def recipe_of(label: str, sizes: str = "64", **fields: object) -> Recipe:
    compression = parse_label(label)
    return Recipe("flux2", sizes=parse_sizes(sizes), compression=compression, **fields)  # type: ignore[arg-type]


def allocation_of(recipe: Recipe) -> Allocation:
    """Bits for mixed tables: 4, and 2 for one convolution in the middle."""
    assert recipe.compression is not None
    names = [site.name for site in conv_sites(build_decoder(WEIGHTS))]
    bits = dict.fromkeys(names, 4) | {names[20]: 2}
    return Allocation(recipe.compression, "channel-scale", bits, {"bytes": 1, "psnr_db": 40.12})


def files_of(made: CompressedDecoder, recipe: Recipe, folder: Path) -> dict[str, bytes]:
    """The artifact's files; its manifest has identifiers of its own."""
    path = folder / artifact_name(recipe, "demo")
    save_artifact(WEIGHTS, recipe, path, compressed=made)
    found = {str(f.relative_to(path)): f.read_bytes() for f in path.rglob("*") if f.is_file()}
    del found["Manifest.json"]
    return found


@pytest.fixture
def solving_fails(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From when it is called, nothing can be solved."""

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("it is solved again")

    def start() -> None:
        for name in ("compress_weights", "compress_allocation", "quantize_w8a8"):
            monkeypatch.setattr(solvers, name, fail)
        for name in ("nearest.kmeans", "layerwise.compress_layerwise", "gptq.compensated"):
            monkeypatch.setattr(f"fluxvae.compress.{name}", fail)

    return start


@pytest.mark.parametrize(
    ("label", "allocated", "fields"),
    [("mixed-700KB-plain", True, {"output": "image"}), ("w8a8", False, {})],
)
def test_what_was_solved_before_gives_the_same_artifact_and_is_not_solved_again(
    label: str,
    allocated: bool,
    fields: dict[str, object],
    solving_fails: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    quick = partial(quantize_w8a8, effort=Effort(samples=64, steps=3, positions=64))
    monkeypatch.setattr(solvers, "quantize_w8a8", quick)
    recipe, store, lines = recipe_of(label, **fields), Store(tmp_path / "store"), []
    allocation = allocation_of(recipe) if allocated else None
    solved = compress(WEIGHTS, recipe, SEEN, allocation=allocation, store=store).compressed
    solving_fails()
    found = compress(
        WEIGHTS, recipe, SEEN, allocation=allocation, store=store, log=lines.append
    ).compressed
    (line,) = lines
    assert line.startswith(f"{label}: found in the cache (solved in ")
    assert found.notes == solved.notes
    assert digest_of(found) == digest_of(solved)
    one, two = tmp_path / "one", tmp_path / "two"
    again = files_of(found, recipe, two)
    assert again == files_of(solved, recipe, one)
    assert any(name.endswith("weight.bin") for name in again)


def test_other_sizes_layouts_and_io_are_of_the_same_key() -> None:
    key = key_of(WEIGHTS, recipe_of(QUICK), None)
    for other in (
        recipe_of(QUICK, "64x96,128", shapes="enumerated"),
        recipe_of(QUICK, layout="nhwc"),
        recipe_of(QUICK, layout="nhwc", nhwc_model=True),
        recipe_of(QUICK, io_precision="float32"),
        recipe_of(QUICK, output="image"),
        recipe_of("int8-channel-plain"),  # what int8-plain stands for
    ):
        assert key_of(WEIGHTS, other, None) == key, other


def test_what_changes_the_solution_has_another_key(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pal4, mixed = recipe_of("pal4"), recipe_of("mixed-900KB")
    allocation = allocation_of(mixed)
    other_seen = calibration_of("photos", [np.zeros_like(SEEN.latents[0])])
    given: list[tuple[Recipe, Calibration | None, Allocation | None]] = [
        (pal4, SEEN, None),
        (pal4, other_seen, None),
        (pal4, replace(SEEN, name="mine"), None),  # which the artifact's record holds
        (recipe_of("pal4", precision="float32"), SEEN, None),
        (recipe_of("pal4", target="iOS16"), SEEN, None),  # another granularity
        (recipe_of("pal4-grouped16"), SEEN, None),
        (recipe_of("pal4-plain"), None, None),
        (recipe_of("pal6"), SEEN, None),
        (recipe_of("w8a8"), SEEN, None),
        (recipe_of("w8a8-85"), SEEN, None),
        (recipe_of("w8a8-symmetric"), SEEN, None),
        (mixed, SEEN, None),
        (mixed, SEEN, allocation),
    ]
    keys = [key_of(WEIGHTS, *one) for one in given]
    keys.append(key_of(replace(WEIGHTS, digest="0" * 64), pal4, SEEN))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 77)
    keys.append(key_of(WEIGHTS, pal4, SEEN))
    monkeypatch.undo()
    monkeypatch.setattr(np, "__version__", "0.1")
    keys.append(key_of(WEIGHTS, pal4, SEEN))
    monkeypatch.undo()
    package = tmp_path / "fluxvae"
    (package / "compress" / "qat").mkdir(parents=True)
    monkeypatch.setattr("fluxvae.compress.store.__file__", str(package / "compress" / "store.py"))
    for source in ("a = 1", "a = 2"):
        (package / "compress" / "gptq.py").write_text(source)
        keys.append(key_of(WEIGHTS, pal4, SEEN))
    assert len(set(keys)) == len(keys)


def kept(store: Store) -> list[Path]:
    return sorted(store.folder.iterdir())


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1000] ^= 1
    path.write_bytes(data)


def another(path: Path) -> None:
    """An entry of other weights under this one's name."""
    store = Store(path.parent / "other")
    compress(load_weights("flux1", "demo"), recipe_of(QUICK), None, store=store)
    kept(store)[0].replace(path)
    store.folder.rmdir()


@pytest.mark.parametrize("damage", [cut, empty, flip, another])
def test_a_damaged_entry_is_replaced_with_a_note(
    damage: Callable[[Path], object], tmp_path: Path
) -> None:
    recipe, store, lines = recipe_of(QUICK), Store(tmp_path), []
    solved = compress(WEIGHTS, recipe, None, store=store).compressed
    (path,) = kept(store)
    damage(path)
    again = compress(WEIGHTS, recipe, None, store=store, log=lines.append).compressed
    assert lines == [f"note: {path} is damaged: it is removed, and solved again"]
    assert digest_of(again) == digest_of(solved)
    lines.clear()
    compress(WEIGHTS, recipe, None, store=store, log=lines.append)
    assert lines[0].startswith("int8-plain: found in the cache")


def test_seconds_are_those_of_the_solving(tmp_path: Path) -> None:
    first, second = (compress(WEIGHTS, recipe_of(QUICK), None, store=Store(tmp_path)) for _ in "ab")
    assert first.seconds == second.seconds > 0


def test_a_folder_that_cannot_be_written_costs_a_note_only(tmp_path: Path) -> None:
    store, lines = Store(tmp_path / "file" / "store"), []
    (tmp_path / "file").write_text("not a folder")
    made = compress(WEIGHTS, recipe_of(QUICK), None, store=store, log=lines.append).compressed
    assert len(made.weights) > 30
    (line,) = lines
    assert line.startswith(f"note: the solved compression is not kept in {store.folder} (")


def test_entries_that_were_not_used_for_longest_go_first(tmp_path: Path) -> None:
    store = Store(tmp_path)
    labels = ["int8-plain", "int8-tensor-plain", "int4-plain"]
    for age, label in enumerate(labels):
        compress(WEIGHTS, recipe_of(label), None, store=store)
        (path,) = tmp_path.glob(f"flux2_tiny_decoder_{label}_*")
        os.utime(path, (1000 + age, 1000 + age))
    compress(WEIGHTS, recipe_of(labels[0]), None, store=store)  # used just now
    size = max(path.stat().st_size for path in kept(store))
    compress(WEIGHTS, recipe_of("int4-channel-plain"), None, store=Store(tmp_path, 3 * size))
    assert [path.name.split("_")[3] for path in kept(store)] == [
        *("int4-channel-plain", "int4-plain", "int8-plain")
    ]


def test_processes_that_write_one_entry_at_once_leave_a_whole_one(tmp_path: Path) -> None:
    recipe, store, lines = recipe_of(QUICK), Store(tmp_path), []
    key = key_of(WEIGHTS, recipe, None)
    solved = compress(WEIGHTS, recipe, None)

    def write_and_read(_: int) -> bool:
        store.keep(key, solved, WEIGHTS, recipe, lines.append)
        return store.find(key, WEIGHTS, recipe, lines.append) is not None

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(write_and_read, range(12)))
    assert (lines, len(kept(store))) == ([], 1)
