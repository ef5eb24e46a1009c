"""``convert --decoder``: choices, notes, and what is refused in one line."""

from pathlib import Path

import pytest
from safetensors.torch import save_file

from tests.cli.run import run
from tests.kl import diffusers_names, narrow_weights

Capture = pytest.CaptureFixture[str]
FULL = ("convert", "--variant", "flux2", "--decoder", "full")


def refused(capsys: Capture, *arguments: str, code: int) -> str:
    ran = run(capsys, *arguments)
    assert (ran.code, ran.out) == (code, "")
    (line,) = [s for s in ran.err.splitlines() if s.startswith("fluxvae: ")]
    return line


def test_dry_run_says_which_attention_auto_stands_for_and_why(capsys: Capture) -> None:
    ran = run(capsys, *FULL, "--weights", "random", "--dry-run")
    assert ran.code == 0
    assert "flux2_full_decoder_nchw_float16_hw1024_random.mlpackage" in ran.out
    assert ran.err.startswith("attention: chunked:1024: 1024 queries at a time hold 67.1 MB")
    small = run(capsys, *FULL, "--weights", "random", "--dry-run", "--size", "256")
    assert small.err.startswith("attention: channels-first: all scores at once take 4.19 MB")
    newest = run(capsys, *FULL, "--weights", "random", "--dry-run", "--target", "iOS18")
    assert "sdpa was not chosen" in newest.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--attention", "sdpa", "--target", "iOS17"), "--attention sdpa needs iOS18 or newer"),
        (("--attention", "flash"), "attention 'flash' is none of auto, plain"),
        (("--attention", "chunked"), "needs a number of queries, such as chunked:1024"),
        (("--attention", "chunked:0"), "a number of queries of at least 1"),
        (("--layout", "nhwc", "--nhwc-model"), "the full decoder has no NHWC graph"),
        (("--format", "neuralnetwork"), "the full decoder has no neuralnetwork form"),
        (("--size", "64,128", "--shapes", "enumerated"), "use --shapes multifunction"),
        (("--weights", "demo"), "demo weights of the tiny decoders only"),
    ],
)
def test_contradictions_are_refused(
    tmp_path: Path, capsys: Capture, options: tuple[str, ...], words: str
) -> None:
    out = ("--out", str(tmp_path / "out"))
    assert words in refused(capsys, *FULL, *out, *options, code=2)
    assert not (tmp_path / "out").exists()


def test_tiny_decoders_have_no_attention_and_flux1_no_small_decoder(capsys: Capture) -> None:
    tiny = ("convert", "--variant", "flux1", "--dry-run")
    assert "have no attention" in refused(capsys, *tiny, "--attention", "sdpa", code=2)
    assert "flux1 has no 'small' decoder" in refused(capsys, *tiny, "--decoder", "small", code=2)


def test_full_weights_under_tiny_and_the_reverse_are_refused(
    tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "ae.safetensors"
    save_file(diffusers_names(narrow_weights("flux1")), path)
    tail = ("--weights", str(path), "--size", "64", "--out", str(tmp_path / "out"))
    line = refused(capsys, "convert", "--variant", "flux1", *tail, code=1)
    assert "use --variant flux1 --decoder full" in line
    line = refused(capsys, *FULL, *tail, code=1)
    assert "these are FLUX.1 VAE's (16 latent channels), not FLUX.2 VAE's" in line
    assert not (tmp_path / "out").exists()
