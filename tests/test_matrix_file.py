"""The TOML of a matrix: what cells it makes, and what it says of mistakes."""

import pytest

from fluxvae.errors import UsageError
from fluxvae.experiments.file import TEMPLATE, parse_matrix
from fluxvae.experiments.plan import Abilities, estimate, reason_not
from fluxvae.records.experiment import Cell

LINUX = Abilities(mac=False, harness=False)


def test_axes_are_combined_and_single_cells_come_after_them() -> None:
    matrix = parse_matrix("""
        [axes]
        variant = ["flux2"]
        layout = ["nchw", "nhwc"]
        precision = ["float16", "float32"]
        compression = ["none", "pal4"]
        sizes = [256]
        [[cell]]
        variant = "flux1"
        [[exclude]]
        precision = "float32"
        compression = ["pal4"]
    """)
    labels = [cell.label() for cell in matrix.cells]
    assert labels == [
        "flux2-nchw-float16-none-256",
        "flux2-nchw-float16-pal4-256",
        "flux2-nchw-float32-none-256",
        "flux2-nhwc-float16-none-256",
        "flux2-nhwc-float16-pal4-256",
        "flux2-nhwc-float32-none-256",
        "flux1-nchw-float16-none-256",
    ]


def test_one_artifact_in_two_spellings_is_one_cell() -> None:
    matrix = parse_matrix("""
        [axes]
        variant = ["flux2", "flux2"]
        sizes = ["256", "256x256"]
        compression = ["pal4", "pal4-compensated"]
        [[cell]]
        variant = "flux2"
        compression = "pal4"
    """)
    assert [cell.label() for cell in matrix.cells] == ["flux2-nchw-float16-pal4-256"]
    assert matrix.merged == 1


def test_labels_differ_wherever_cells_do() -> None:
    cells = [
        Cell("flux2"), Cell("flux1"), Cell("flux2", decoder="full"), Cell("flux2", layout="nhwc"),
        Cell("flux2", precision="float32"), Cell("flux2", io_precision="float32"),
        Cell("flux2", shapes="enumerated", sizes="256x256,512x512"),
        Cell("flux2", shapes="multifunction", sizes="256x256,512x512"),
        Cell("flux2", sizes="256x512"), Cell("flux2", sizes="512x256"),
        Cell("flux2", compression="pal4"), Cell("flux2", attention="chunked:1024"),
        Cell("flux2", compute_unit="cpuOnly"), Cell("flux2", driver="swift"),
    ]  # fmt: skip
    labels = [cell.label() for cell in cells]
    assert len(set(labels)) == len(cells)
    assert all(set(label) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-+")
               for label in labels)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[axes]\nvarient = ['flux2']", "did you mean 'variant'?"),
        ("[axes]\nvariant = ['flux3']", "did you mean 'flux"),
        ("[axes]\nvariant = ['flux2']\nlayout = ['nwhc']", "did you mean 'nhwc'?"),
        ("[axes]\nvariant = ['flux2']\nprecision = ['fp16']", "did you mean 'float16'?"),
        ("[axes]\nvariant = ['flux2']\ncompression = ['pall4']", "did you mean 'pal4'?"),
        ("[axes]\nvariant = ['flux2']\nsizes = ['250']", "multiples of 8"),
        ("[axes]\nvariant = ['flux2']\nlayout = []", "has no values"),
        ("[axes]\nvariant = ['flux2']\nlayout = [3]", "expected text"),
        ("[matrix]\ncool_down_s = 3\n[axes]\nvariant = ['flux2']", "did you mean 'cooldown_s'?"),
        ("[matrix]\nruns = -1\n[axes]\nvariant = ['flux2']", "whole number from 0, got -1"),
        ("[matrix]\nruns = true\n[axes]\nvariant = ['flux2']", "whole number from 0, got True"),
        ("[matrix]\ntime_limit_s = nan\n[axes]\nvariant = ['flux2']", "expected a number"),
        ("[matrix]\nmeasure_needs = ['QUITE']\n[axes]\nvariant = ['flux2']", "'QUIET'?"),
        ("[matrix.weights]\nflux4 = 'demo'\n[axes]\nvariant = ['flux2']", "did you mean 'flux"),
        ("[matrix.thresholds]\npsnr = 3\n[axes]\nvariant = ['flux2']", "did you mean 'psnr_db'?"),
        ("[matrix.thresholds]\npsnr_db = 1e9\n[axes]\nvariant = ['flux2']", "up to 200 dB"),
        ("[matrix.thresholds]\npsnr_db = 0\n[axes]\nvariant = ['flux2']", "above 0"),
        ("[matrix.thresholds]\npsnr_db = -1e9\n[axes]\nvariant = ['flux2']", "psnr_db"),
        ("[matrix.thresholds]\nlatency_ms = 1e30\n[axes]\nvariant = ['flux2']", "up to 3.6e+06"),
        ("[[cells]]\nvariant = 'flux2'", "did you mean 'cell'?"),
        ("[cell]\nvariant = 'flux2'", "double brackets"),
        ("[axes]\nlayout = ['nchw']", "a cell has no variant"),
        ("", "the matrix is empty"),
        ("[axes]\nvariant = ['flux2']\n[[exclude]]\nvariant = 'flux2'", "the matrix is empty"),
        ("[axes\n", "is not TOML"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_the_nearest_word(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_matrix(text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_axes_beyond_all_sense_are_refused_before_they_are_combined() -> None:
    sizes = [f"{8 * a}x{8 * b}" for a in range(8, 100) for b in range(8, 100)]
    text = f"[axes]\nvariant = ['flux1', 'flux2']\nsizes = {sizes}\n"
    text += "compression = ['none', 'pal4', 'pal6', 'pal8', 'int8', 'int4', 'w8a8']\n"
    with pytest.raises(UsageError, match="make 118496 cells"):
        parse_matrix(text)


@pytest.mark.parametrize(
    ("cell", "abilities", "words"),
    [
        (Cell("flux2"), LINUX, None),
        (Cell("flux2", compute_unit="cpuOnly"), LINUX, None),
        (Cell("flux2", compute_unit="cpuAndGPU"), LINUX, "needs a Mac"),
        (Cell("flux2", compute_unit="cpuAndGPU"), Abilities(True, False), None),
        (Cell("flux2", driver="swift"), LINUX, "--harness"),
        (Cell("flux2", driver="swift"), Abilities(False, True), None),
        (Cell("flux2", attention="sdpa"), LINUX, "have no attention"),
        (Cell("flux2", decoder="full", compression="pal4"), LINUX, None),
        (Cell("flux2", compression="pal4-trained"), LINUX, "fluxvae qat"),
        (Cell("flux2", shapes="enumerated"), LINUX, "needs two sizes or more"),
    ],
)
def test_what_cannot_be_done_has_a_reason(
    cell: Cell, abilities: Abilities, words: str | None
) -> None:
    reason = reason_not(cell, abilities, calibrated=True)
    assert (reason is None) if words is None else words in str(reason)


def test_compression_that_looks_at_latents_needs_some() -> None:
    cell = Cell("flux2", compression="pal4")
    assert "encoder" in str(reason_not(cell, LINUX, calibrated=False))
    plain = Cell("flux2", compression="pal4-plain")
    assert reason_not(plain, LINUX, calibrated=False) is None


def test_the_template_is_a_matrix() -> None:
    matrix = parse_matrix(TEMPLATE.read_text("utf-8"))
    assert [cell.label() for cell in matrix.cells] == [
        "flux2-nchw-float16-none-256",
        "flux2-nchw-float16-pal4-plain-256",
        "flux2-nhwc-float16-none-256",
        "flux2-nchw-float32-none-256",
    ]
    seconds, size = estimate(matrix.cells, matrix.settings)
    assert 60 < seconds < 3600
    assert 5e6 < size < 5e7
