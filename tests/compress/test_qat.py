"""Training: it helps, it repeats itself, it survives kills, and it can be split."""

import secrets
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed, multiprocessing

from fluxvae.compress.checkpoint import load_checkpoint, save_checkpoint
from fluxvae.compress.fake import simulate
from fluxvae.compress.qat.data import Pictures, crops, folder_pictures
from fluxvae.compress.qat.state import ProcessGroup, average_gradients, share
from fluxvae.compress.qat.student import Rates, make_student
from fluxvae.compress.qat.train import Settings, Trained, distance, psnr, train
from fluxvae.data.photos import EVALUATION_PHOTOS, photo_image
from fluxvae.errors import CompressionError, UsageError
from fluxvae.networks.build import build_decoder, build_encoder
from fluxvae.networks.structure import conv_sites
from fluxvae.networks.weights import load_weights
from fluxvae.recipes.compression import Compression
from fluxvae.validation.metrics import compare
from tests import warm
from tests.cli.run import run
from tests.compress.qat_starts import W8A8, demo_start, image_folder, tables

WEIGHTS = load_weights("flux2", "demo")
ENCODER = load_weights("flux2", "demo", part="encoder")
SMALL = Settings(steps=4, batch=1, crop=32, side=32, judge_every=2, warmup=2)
PAIR = replace(SMALL, steps=2, batch=2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A start, and images to train on."""
    place = tmp_path_factory.mktemp("qat")
    image_folder(place / "images")
    demo_start(place)
    return place


@pytest.fixture(scope="module")
def pictures(folder: Path) -> Pictures:
    return folder_pictures(folder / "images")


def trained(folder: Path, pictures: Pictures, state: Path, settings: Settings) -> Trained:
    start = load_checkpoint(folder / "start.safetensors", WEIGHTS)
    return train(start, WEIGHTS, ENCODER, pictures, settings, state)


def test_training_gains_on_photos_it_never_saw(
    folder: Path, pictures: Pictures, tmp_path: Path
) -> None:
    """From scales eight times too large: 3.3 dB in 14 steps were measured; 2 are asked."""
    settings = replace(SMALL, steps=14, judge_every=7, average=0.5, rates=Rates(scale=0.2))
    result = trained(folder, pictures, tmp_path / "state", settings)
    first, best = result.curve[0], {p.step: p for p in result.curve}[result.best_step]
    assert best.validation_db == max(p.validation_db for p in result.curve)
    assert best.held_out_db - first.held_out_db > 2
    # The oracle is numpy's: the float32 decoder and the exported result on the photos again.
    teacher, student = build_decoder(WEIGHTS), simulate(result.compressed, "float16")
    figures = []
    for photo in EVALUATION_PHOTOS:
        with torch.no_grad():
            latent = build_encoder(ENCODER)(torch.from_numpy(photo_image(photo, 32, 32)))
            figures.append(compare(student(latent).numpy(), teacher(latent).numpy()).psnr_db)
    assert np.mean(figures) == pytest.approx(best.held_out_db, abs=0.01)


def test_a_start_that_is_best_is_kept(folder: Path, pictures: Pictures, tmp_path: Path) -> None:
    """Rates that ruin every step leave the start."""
    settings = replace(SMALL, steps=2, judge_every=1, rates=Rates(weight=0.1))
    result = trained(folder, pictures, tmp_path / "state", settings)
    assert result.best_step == 0
    start = load_checkpoint(folder / "start.safetensors", WEIGHTS)
    for name, form in start.weights.items():
        assert np.array_equal(form.data, result.compressed.weights[name].data)


def test_tables_are_distilled_with_fixed_indices(pictures: Pictures, tmp_path: Path) -> None:
    start = tables(build_decoder(WEIGHTS), 3)
    settings = replace(SMALL, steps=6, judge_every=6, average=0.5, rates=Rates(table=3e-3))
    result = train(start, WEIGHTS, ENCODER, pictures, settings, tmp_path / "state")
    first, best = result.curve[0], result.curve[-1]
    assert result.best_step == 6
    assert best.held_out_db - first.held_out_db > 2  # 5.2 dB after 5 of 10 steps were measured
    asked = Compression("palette", bits=3)
    path = save_checkpoint(tmp_path / "t.safetensors", result.compressed, WEIGHTS, asked, {})
    for name, form in load_checkpoint(path, WEIGHTS, asked).weights.items():
        assert np.array_equal(form.indices, start.weights[name].indices)
        assert not np.array_equal(form.lut, start.weights[name].lut)


def test_a_state_of_another_run_is_refused(
    folder: Path, pictures: Pictures, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    trained(folder, pictures, state, replace(SMALL, steps=1))
    with pytest.raises(CompressionError, match=r"state of another run \(seed: 0, now 1\)"):
        trained(folder, pictures, state, replace(SMALL, steps=1, seed=1))
    state.write_bytes(state.read_bytes()[:-1])
    with pytest.raises(CompressionError, match="cannot be read"):
        trained(folder, pictures, state, replace(SMALL, steps=1))


def test_a_diverging_run_says_so(folder: Path, pictures: Pictures, tmp_path: Path) -> None:
    settings = replace(SMALL, rates=Rates(bias=1e30))
    with pytest.raises(CompressionError, match="the training diverged"):
        trained(folder, pictures, tmp_path / "state", settings)


def test_minutes_end_and_a_resumed_run_has_only_what_is_left(
    folder: Path, pictures: Pictures, tmp_path: Path
) -> None:
    settings = replace(SMALL, steps=None, seconds=0.5)
    state = tmp_path / "state"
    first = trained(folder, pictures, state, settings)
    assert first.steps > 0
    assert first.seconds >= 0.5
    again = trained(folder, pictures, state, settings)
    assert (again.steps, again.curve) == (first.steps, first.curve)


def test_settings_that_contradict_each_other() -> None:
    for wrong in ({}, {"steps": 1, "seconds": 1.0}, {"steps": 1, "crop": 20}):
        with pytest.raises(UsageError):
            Settings(**wrong)
    with pytest.raises(UsageError, match="give --batch a multiple of 2"):
        share(3, ProcessGroup(0, 2))


def test_psnr_is_the_metrics_mean() -> None:
    random = np.random.Generator(np.random.PCG64(0))
    images = [random.normal(size=(1, 3, 8, 8)).astype(np.float32) for _ in range(4)]
    cases = [tuple(torch.from_numpy(i) for i in images[k : k + 2]) for k in (0, 2)]
    wanted = np.mean([compare(images[k], images[k + 1]).psnr_db for k in (0, 2)])
    assert psnr(torch.nn.Sequential(), cases) == pytest.approx(wanted, abs=1e-9)


def test_the_loss_is_the_mean_of_root_mean_squares() -> None:
    random = np.random.Generator(np.random.PCG64(0))
    one, two = random.normal(size=(2, 3, 3, 8, 8)).astype(np.float32)
    wanted = np.mean([compare(a, b).rmse for a, b in zip(one, two, strict=True)])
    found = distance(torch.from_numpy(one), torch.from_numpy(two))
    assert float(found) == pytest.approx(wanted, rel=1e-6)
    same = torch.ones(2, 3, 4, 4, requires_grad=True)
    distance(same, torch.ones(2, 3, 4, 4)).backward()
    assert same.grad is not None
    assert torch.equal(same.grad, torch.zeros_like(same))


# Several processes


def gradients(processes: ProcessGroup, folder: Path) -> tuple[float, list[torch.Tensor]]:
    start = load_checkpoint(folder / "start.safetensors", WEIGHTS)
    student = make_student(start)
    found = folder_pictures(folder / "images")
    images = crops(found.training, 32, 0, 0, share(4, processes))
    with torch.no_grad():
        latent = build_encoder(ENCODER)(torch.from_numpy(images))
        target = build_decoder(WEIGHTS)(latent)
    loss = distance(student(latent), target)
    loss.backward()
    parameters = list(student.parameters())
    value = average_gradients(parameters, loss.detach(), processes)
    return float(value), [p.grad for p in parameters if p.grad is not None]


def member(rank: int, folder: Path) -> tuple[tuple[float, list[torch.Tensor]], Trained]:
    place = f"file://{folder / 'meeting'}"
    distributed.init_process_group("gloo", init_method=place, rank=rank, world_size=2)
    try:
        processes = ProcessGroup(rank, 2)
        found = gradients(processes, folder)
        start = load_checkpoint(folder / "start.safetensors", WEIGHTS)
        images = folder_pictures(folder / "images")
        state = folder / "processes.state"
        return found, train(start, WEIGHTS, ENCODER, images, PAIR, state, processes=processes)
    finally:
        distributed.destroy_process_group()


def test_two_processes_are_one_with_the_joint_batch(
    folder: Path, pictures: Pictures, tmp_path: Path
) -> None:
    other = multiprocessing.get_context("spawn").Process(target=member, args=(1, folder))
    other.start()
    (loss, found), processes = member(0, folder)
    other.join()
    assert other.exitcode == 0
    one = gradients(ProcessGroup(), folder)
    assert loss == pytest.approx(one[0], rel=1e-5)
    for have, want in zip(found, one[1], strict=True):
        # float32 sums in another order: 6e-6 of the largest was measured.
        assert float((have - want).abs().max()) <= 1e-4 * float(want.abs().max()) + 1e-12
    alone = trained(folder, pictures, tmp_path / "state", PAIR)
    assert processes.steps == alone.steps
    for point, want in zip(processes.curve, alone.curve, strict=True):
        assert point.step == want.step
        assert point.held_out_db == pytest.approx(want.held_out_db, abs=0.05)


# The command

ARGUMENTS = (
    "qat", "--variant", "flux2", "--weights", "demo", "--steps", "6", "--batch", "1",
    "--crop", "32", "--judge-size", "32", "--judge-every", "1", "--device", "cpu",
)  # fmt: skip


def qat(folder: Path, out: Path, *more: str) -> tuple[str, ...]:
    start = str(folder / "start.safetensors")
    return (*ARGUMENTS, "--from", start, "--images", str(folder / "images"), "--out", str(out),
            *more)  # fmt: skip


QAT = """
import sys, torch
from fluxvae.cli import main
torch.set_num_threads(int(sys.argv[1]))
main(sys.argv[2:])
"""


def kill_at(step: int, arguments: tuple[str, ...]) -> str:
    """Run the command in a process of its own and SIGKILL it once it says it is at ``step``."""
    process = warm.start("-c", QAT, str(torch.get_num_threads()), *arguments)
    said = ""
    for line in process.stderr:
        said += line
        if line.startswith(f"step {step}:"):
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, said
    return said


def test_a_killed_command_goes_on_and_gives_the_same_bytes(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGKILL at a random step; the curve, judged at every step, is that of unbroken runs."""
    one, out = (tmp_path / f"{name}.safetensors" for name in ("one", "killed"))
    whole = run(capsys, *qat(folder, one, "--json"))
    assert whole.code == 0, whole.err
    step = 2 + secrets.randbelow(4)
    kill_at(step, qat(folder, out, "--save-every", "0"))
    assert not out.exists()
    assert (tmp_path / "killed.safetensors.run" / "state.safetensors").exists()
    resumed = run(capsys, *qat(folder, out, "--json"))
    assert resumed.code == 0, resumed.err
    assert "going on with the training" in resumed.err
    assert f"step {step - 1}:" not in resumed.err  # it did not begin anew
    assert resumed.json["curve"] == whole.json["curve"], f"killed at step {step}"
    assert [p["step"] for p in whole.json["curve"]] == list(range(7))
    assert not (tmp_path / "killed.safetensors.run").exists()
    assert one.read_bytes() == out.read_bytes()
    record = load_checkpoint(one, WEIGHTS, W8A8).notes["qat"]
    assert record["curve"] == whole.json["curve"]


def test_the_command_finds_its_own_start(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``--from w8a8-plain`` compresses first, keeps that, and does not do it again."""
    out = tmp_path / "out.safetensors"
    more = ("--from", "w8a8-plain", "--images", str(folder / "images"), "--out", str(out))
    arguments = (*ARGUMENTS, *more, "--steps", "1")
    state = tmp_path / "out.safetensors.run" / "state.safetensors"
    state.parent.mkdir()
    state.write_bytes(b"damaged")  # so that it ends when the start is there
    first = run(capsys, *arguments)
    assert (first.code, "cannot be read" in first.err) == (1, True), first.err
    assert "compressing without gradients, to start from: w8a8-plain" in first.err
    state.unlink()
    refused = run(capsys, *arguments, "--from", "w8a8-plain-symmetric")
    assert "holds another training (w8a8-plain, now w8a8-plain-symmetric" in refused.err
    second = run(capsys, *arguments)
    assert second.code == 0, second.err
    assert "compressing without gradients" not in second.err
    made = load_checkpoint(out, WEIGHTS, W8A8)
    assert len(made.weights) == len(made.activations) == len(conv_sites(made.decoder))
    assert made.notes["int8_share"] == 1


def test_bad_input(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.safetensors"
    cases = [
        (("--variant", "flux1"), 1, "holds a decoder of flux2, expected flux1"),
        (("--minutes", "1"), 2, "contradict each other"),
        (("--from", "pal5"), 2, "palettes have"),
        (("--from", "int4"), 2, "cannot be trained"),
        (("--from", str(tmp_path / "none.safetensors")), 1, "no such file"),
        (("--images", str(tmp_path)), 1, "no images in"),
        (("--out", str(tmp_path / "x.mlpackage")), 2, "expected such a name"),
        (("--crop", "20"), 2, "multiple of 8"),
        (("--weights", "random:4"), 1, "was trained from demo"),
    ]
    if not torch.cuda.is_available():
        cases.append((("--device", "cuda"), 2, "finds no CUDA device"))
    for more, code, text in cases:
        ran = run(capsys, *qat(folder, out), *more)
        assert (ran.code, text in ran.err) == (code, True), ran.err
        assert not out.exists()
        assert not list(tmp_path.iterdir()), "something was left behind"
    out.touch()
    assert "exists already" in run(capsys, *qat(folder, out)).err
