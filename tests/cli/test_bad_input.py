"""Bad input: one clear line, exit code 1 or 2, and no half-written output.

Whatever goes to stderr besides that line is progress.
"""

import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file

from fluxvae.networks.catalog import CATALOG
from fluxvae.networks.weights import Weights, load_weights
from tests import warm
from tests.checkpoint_files import in_style, write
from tests.cli.run import Ran, run
from tests.hub_server import serving
from tests.packages import MODEL, WEIGHTS, copy_of, edited, tree

Capture = pytest.CaptureFixture[str]
ROOT = Path(__file__).resolve().parents[2]
PROGRESS = ("loading ", "converting ", "validating ", "decoded ", "  ")
FULL = pytest.mark.full  # the same again at another moment
COMMANDS = ("inspect", "validate", "decode")


def refused(ran: Ran, words: str, code: int = 1) -> str:
    """The one line of a refusal, which must hold ``words``."""
    assert (ran.code, ran.out) == (code, ""), ran.err
    lines = [s for s in ran.err.splitlines() if s and not s.startswith(PROGRESS)]
    assert len(lines) == 1, ran.err
    assert lines[0].startswith("fluxvae: ")
    assert words in lines[0]
    assert len(lines[0]) < 700  # a refusal of the Hub names the page to download from
    return lines[0]


def fresh(folder: Path, *arguments: str, limit: int | None = None, **variables: str) -> Ran:
    """Run in a new process: for environment variables, limits and signals."""
    return warm.run(
        "-m", "fluxvae", *arguments, cwd=folder, env=environment(**variables), limit=limit
    )


def environment(**variables: str) -> dict[str, str]:
    keep = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    return {**keep, "PYTHONPATH": str(ROOT), **variables}


@pytest.fixture(scope="module")
def decoder() -> Weights:
    return load_weights("flux1", "demo")


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Path]:
    """A folder with somebody's file in it, which a refused command must leave as it was."""
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    yield folder
    assert tree(folder) == {"notes.txt": 4}


# Weights


def convert_file(capsys: Capture, file: Path, output: Path, variant: str = "flux1") -> Ran:
    return run(
        capsys, "convert", "--variant", variant, "--weights", str(file), "--size", "64",
        "--out", str(output),
    )  # fmt: skip


def test_truncated_safetensors(
    decoder: Weights, tmp_path: Path, output: Path, capsys: Capture
) -> None:
    file = write(tmp_path / "w.safetensors", in_style("taesd", decoder))
    for keep in (0, 5, 200, file.stat().st_size - 1):
        file.write_bytes(file.read_bytes()[:keep])
        refused(convert_file(capsys, file, output), "w.safetensors")
        write(file, in_style("taesd", decoder))


def test_pickle_with_code_in_it(tmp_path: Path, output: Path, capsys: Capture) -> None:
    mark = tmp_path / "the code ran"

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (os.mkdir, (str(mark),))

    torch.save({"1.weight": Evil()}, tmp_path / "zip.pth")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"1.weight": Evil()}))
    for name in ("zip.pth", "plain.pth"):
        refused(convert_file(capsys, tmp_path / name, output), name)
        refused(run(capsys, "convert", "--variant", "flux1", "--weights", "demo", "--size", "64",
                    "--validate", "--encoder", str(tmp_path / name), "--out", str(output)),
                name)  # fmt: skip
    assert not mark.exists()


def drop(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["3.conv.0.bias"]


def add(tensors: dict[str, torch.Tensor]) -> None:
    tensors["3.conv.9.weight"] = torch.zeros(3)


def reshape(tensors: dict[str, torch.Tensor]) -> None:
    tensors["3.conv.0.bias"] = torch.zeros(65)


def spoil(tensors: dict[str, torch.Tensor]) -> None:
    tensors["3.conv.0.bias"] = torch.full((64,), torch.nan)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (drop, "3.conv.0.bias"),
        (add, "3.conv.9.weight"),
        (reshape, "3.conv.0.bias"),
        (spoil, "NaN"),
    ],
)
@pytest.mark.parametrize("kind", [".safetensors", ".pth"])
def test_missing_extra_misshapen_and_broken_tensors(
    decoder: Weights,
    tmp_path: Path,
    output: Path,
    capsys: Capture,
    change: Callable[[dict[str, torch.Tensor]], None],
    words: str,
    kind: str,
) -> None:
    tensors = in_style("taesd", decoder)
    change(tensors)
    file = write(tmp_path / f"w{kind}", tensors)
    line = refused(convert_file(capsys, file, output), words)
    assert str(file) in line


@pytest.mark.parametrize("style", ["taesd", "diffusers"])
def test_weights_of_the_other_variant(
    decoder: Weights, tmp_path: Path, output: Path, capsys: Capture, style: str
) -> None:
    file = write(tmp_path / "w.safetensors", in_style(style, decoder))
    refused(convert_file(capsys, file, output, "flux2"), "flux1")


def test_weights_that_are_not_there(tmp_path: Path, output: Path, capsys: Capture) -> None:
    refused(convert_file(capsys, tmp_path / "nowhere.pth", output), "does not exist")
    (tmp_path / "empty").mkdir()
    refused(convert_file(capsys, tmp_path / "empty", output), "the folder has no .safetensors")


def test_file_of_the_hub_with_another_digest(
    decoder: Weights, tmp_path: Path, output: Path
) -> None:
    content = save(in_style("diffusers", decoder), {"format": "pt"})
    with serving(CATALOG["flux1"].hub, content) as server:
        ran = fresh(tmp_path, "convert", "--variant", "flux1", "--size", "64", "--out", str(output),
                    HF_ENDPOINT=server.endpoint, HF_HUB_CACHE=str(tmp_path / "hub"),
                    HF_HUB_OFFLINE="0")  # fmt: skip
        assert server.count("GET") > 0
    refused(ran, "sha256")


def test_no_network(tmp_path: Path, output: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{free.getsockname()[1]}"
    arguments = ("convert", "--variant", "flux1", "--size", "64", "--out", str(output))
    hub = {"HF_ENDPOINT": closed, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "0"}
    refused(fresh(tmp_path, *arguments, **hub), "madebyollin/taef1")
    refused(fresh(tmp_path, *arguments, "--offline", **hub), "madebyollin/taef1")
    hub["HF_HUB_OFFLINE"] = "1"
    refused(fresh(tmp_path, *arguments, **hub), "madebyollin/taef1")


# Options


@pytest.mark.parametrize("size", ["100", "64x100", "7", "9999"])
def test_size_that_is_not_possible(output: Path, capsys: Capture, size: str) -> None:
    ran = run(capsys, "convert", "--variant", "flux1", "--weights", "demo", "--size", size,
              "--out", str(output))  # fmt: skip
    line = refused(ran, f"size {size} is not possible", code=2)
    assert "multiples of 8 between 64 and 4096" in line


def test_output_that_exists(
    output: Path, tmp_path: Path, demo_package: Path, demo_latents: Path, capsys: Capture
) -> None:
    taken = tmp_path / "taken"
    package = copy_of(demo_package, taken)
    before = tree(taken)
    ran = run(capsys, "convert", "--variant", "flux2", "--weights", "demo", "--size", "64",
              "--out", str(taken))  # fmt: skip
    refused(ran, f"{package} exists already: pass --overwrite")
    assert tree(taken) == before
    raw = tmp_path / "raw.safetensors"
    raw.write_bytes(b"mine")
    ran = run(capsys, "decode", str(package), str(demo_latents), "--out", str(raw))
    refused(ran, f"{raw} exists already: pass --overwrite")
    assert raw.read_bytes() == b"mine"
    ran = run(capsys, "decode", str(package), str(demo_latents), "--out", str(raw / "images"))
    refused(ran, "raw.safetensors is a file; expected a folder")


# Artifacts


def arguments(command: str, artifact: Path, latents: Path, output: Path) -> tuple[str, ...]:
    more = (str(latents), "--out", str(output / "images")) if command == "decode" else ()
    return (command, str(artifact), *more)


def cut_model(package: Path) -> None:
    file = package / MODEL
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def cut_weights(package: Path) -> None:
    file = package / WEIGHTS
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def no_weights(package: Path) -> None:
    (package / WEIGHTS).unlink()


def empty_model(package: Path) -> None:
    (package / MODEL).write_bytes(b"")


def no_manifest(package: Path) -> None:
    (package / "Manifest.json").unlink()


def cut_manifest(package: Path) -> None:
    file = package / "Manifest.json"
    file.write_bytes(file.read_bytes()[:100])


def foreign_model(package: Path) -> None:
    (package / MODEL).write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(1000))


def other_kind(package: Path) -> None:
    with edited(package) as model:
        model.identity.SetInParent()


DAMAGE = [
    cut_model, cut_weights, no_weights, empty_model, no_manifest, cut_manifest, foreign_model,
    other_kind,
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("damage", DAMAGE, ids=[d.__name__ for d in DAMAGE])
def test_truncated_or_foreign_package(
    demo_package: Path,
    demo_latents: Path,
    tmp_path: Path,
    output: Path,
    capsys: Capture,
    command: str,
    damage: Callable[[Path], None],
) -> None:
    package = copy_of(demo_package, tmp_path)
    damage(package)
    result = run(capsys, *arguments(command, package, demo_latents, output))
    if (damage, command) == (other_kind, "inspect"):  # it lists what it cannot run
        assert result.code == 0
        assert "identity" in result.out
    else:
        refused(result, "")


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_no_package_at_all(
    demo_latents: Path, tmp_path: Path, output: Path, capsys: Capture, command: str
) -> None:
    (tmp_path / "empty.mlpackage").mkdir()
    (tmp_path / "text.mlmodel").write_text("hello")
    (tmp_path / "picture.png").write_bytes(b"")
    for name, words in (
        ("nowhere.mlpackage", "does not exist"),
        ("empty.mlpackage", "it has no Manifest.json"),
        ("text.mlmodel", "is not a Core ML model"),
        ("picture.png", "is neither an .mlpackage or .mlmodelc folder nor an .mlmodel file"),
    ):
        refused(run(capsys, *arguments(command, tmp_path / name, demo_latents, output)), words)


@pytest.mark.parametrize("command", ["validate", "decode"])
def test_package_that_fluxvae_did_not_make(
    demo_package: Path,
    demo_latents: Path,
    tmp_path: Path,
    output: Path,
    capsys: Capture,
    command: str,
) -> None:
    package = copy_of(demo_package, tmp_path)
    with edited(package) as model:
        model.description.metadata.userDefined.clear()
    ran = run(capsys, *arguments(command, package, demo_latents, output))
    refused(ran, "was not made by fluxvae")


# Latents


@pytest.mark.parametrize("command", ["validate", "decode"])
@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((1, 32, 16, 16), "8"),
        ((1, 128, 4, 4), "pixel_shuffle"),
        ((1, 16, 8, 8), "16 channels belong to another model"),
        ((8, 8), "expected (1, 32, H/8, W/8)"),
    ],
)
def test_latents_of_the_wrong_shape(
    demo_package: Path,
    tmp_path: Path,
    output: Path,
    capsys: Capture,
    command: str,
    shape: tuple[int, ...],
    words: str,
) -> None:
    np.save(tmp_path / "x.npy", np.zeros(shape, np.float32))
    save_file({"x": torch.zeros(shape)}, tmp_path / "x.safetensors")
    for latents in (tmp_path / "x.npy", tmp_path / "x.safetensors"):
        if command == "decode":
            ran = run(capsys, *arguments(command, demo_package, latents, output))
        else:
            ran = run(capsys, command, str(demo_package), "--latents", str(latents))
        refused(ran, words)


# A full disk

DEMO = ("convert", "--variant", "flux2", "--weights", "demo", "--size", "64")


@pytest.mark.parametrize("room", [pytest.param("200 kB", marks=FULL), "all but 100 bytes"])
def test_full_disk_while_a_package_is_saved(
    demo_package: Path, tmp_path: Path, output: Path, room: str
) -> None:
    size = (demo_package / WEIGHTS).stat().st_size
    limit = 200_000 if room == "200 kB" else size - 100
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    cache = str(tmp_path / "torch")
    ran = fresh(tmp_path, *DEMO, "--out", str(output / "a" / "b"), limit=limit,
                TMPDIR=str(temporary), TORCHINDUCTOR_CACHE_DIR=cache)  # fmt: skip
    refused(ran, f"no space left while writing {output}/a/b/flux2_tiny")
    assert tree(temporary) == {}


def test_full_disk_keeps_the_package_that_was_to_be_replaced(
    demo_package: Path, tmp_path: Path
) -> None:
    package = copy_of(demo_package, tmp_path / "old")
    before = tree(tmp_path / "old")
    ran = fresh(tmp_path, *DEMO, "--out", str(package), "--overwrite", limit=1_000_000)
    refused(ran, f"no space left while writing {package}")
    assert tree(tmp_path / "old") == before


def test_full_disk_while_a_neural_network_is_saved(tmp_path: Path, output: Path) -> None:
    ran = fresh(tmp_path, *DEMO, "--format", "neuralnetwork", "--out", str(output), limit=1_000_000)
    refused(ran, "no space left while writing")


@pytest.mark.parametrize("out", ["images", "raw.safetensors"])
def test_full_disk_while_decoding(
    demo_package: Path, demo_latents: Path, tmp_path: Path, output: Path, out: str
) -> None:
    ran = fresh(tmp_path, "decode", str(demo_package), str(demo_latents), "--out",
                str(output / out), limit=1000)  # fmt: skip
    refused(ran, f"no space left while writing {output}/{out}")


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mount a file system of a given size."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(size: str) -> Path:
        if os.geteuid() != 0:
            pytest.skip("mounting a small tmpfs needs root")
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)],
            capture_output=True,
            text=True,
        )
        if done.returncode:
            pytest.skip(f"a small tmpfs cannot be mounted here: {done.stderr.strip()}")
        return place

    yield mount
    if os.path.ismount(place):
        subprocess.run(["umount", str(place)], check=True)


# The draft and coremltools' own copy of it need twice 2.7 MB: the first file does not fit in the
# one, the second in the other.
@pytest.mark.parametrize(
    ("room", "sizes"), [pytest.param("1m", "64", marks=FULL), ("4m", "64,128")]
)
def test_disk_that_is_really_full(
    tiny_disk: Callable[[str], Path], tmp_path: Path, room: str, sizes: str
) -> None:
    disk = tiny_disk(room)
    (disk / "notes.txt").write_text("mine")
    ran = fresh(tmp_path, *DEMO[:-1], sizes, "--out", str(disk / "a"))
    refused(ran, f"no space left while writing {disk}/a/flux2_tiny")
    assert tree(disk) == {"notes.txt": 4}


# Ctrl-C

# Runs the command line with one function slowed down: it says so, and waits to be interrupted.
SLOW = """
import sys, time
import fluxvae.artifact.save as package
real = package.{name}
def slow(*arguments, **options):
    print("now", file=sys.stderr, flush=True)
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        if {swallow}:
            return real(*arguments, **options)
        raise
package.{name} = slow
from fluxvae.cli.main import main
main()
"""


def cold(folder: Path, *command: str) -> subprocess.Popen[str]:
    """A process that has everything to import yet."""
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # pytest may have been started in the background, where SIGINT is ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def started(folder: Path, *command: str) -> warm.Process:
    return warm.start(*command, cwd=folder, env=environment())


def interrupted(
    process: subprocess.Popen[str] | warm.Process, ready: str, delay: float = 0.1
) -> Ran:
    """Send SIGINT ``delay`` seconds after a line of stderr begins with ``ready``."""
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(line)
        if line.startswith(ready):
            break
    time.sleep(delay)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    said = "".join(line for line in seen if line != "now\n") + err
    assert process.returncode is not None
    return Ran(process.returncode, out, said)


# Half a second after that line a cold process is in the midst of importing coremltools, a warm one
# in the midst of converting.
@pytest.mark.parametrize(
    ("begin", "delay"),
    [pytest.param(cold, 0.0, marks=FULL), (cold, 0.5), pytest.param(started, 0.5, marks=FULL)],
)
def test_ctrl_c_while_converting(
    tmp_path: Path,
    output: Path,
    begin: Callable[..., subprocess.Popen[str] | warm.Process],
    delay: float,
) -> None:
    sizes = "64" if begin is cold else "64,128,192"
    command = ["-m", "fluxvae", *DEMO[:-1], sizes, "--out", str(output / "a" / "b")]
    ran = interrupted(begin(tmp_path, *command), "converting", delay)
    refused(ran, "interrupted; nothing half-written was kept")


# A library that swallows the interrupt and goes on must not get its way: seen of coremltools and
# torch, whose optional imports are guarded by bare excepts.
@pytest.mark.parametrize(
    ("name", "swallow"),
    [pytest.param("write_model", False, marks=FULL), ("write_model", True),
     pytest.param("_read_again", True, marks=FULL), ("commit", False)],
)  # fmt: skip
def test_ctrl_c_while_saving(tmp_path: Path, output: Path, name: str, swallow: bool) -> None:
    script = SLOW.format(name=name, swallow=swallow)
    command = ["-c", script, *DEMO, "--out", str(output / "a")]
    ran = interrupted(started(tmp_path, *command), "now")
    refused(ran, "interrupted; nothing half-written was kept")


def test_ctrl_c_keeps_the_package_that_was_to_be_replaced(
    demo_package: Path, tmp_path: Path
) -> None:
    package = copy_of(demo_package, tmp_path / "old")
    before = tree(tmp_path / "old")
    script = SLOW.format(name="_read_again", swallow=False)
    command = ["-c", script, *DEMO, "--out", str(package), "--overwrite"]
    refused(interrupted(started(tmp_path, *command), "now"), "interrupted")
    assert tree(tmp_path / "old") == before
