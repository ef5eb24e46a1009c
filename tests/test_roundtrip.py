"""A round trip of small pictures through two packages of the demo decoder."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch
from PIL import Image

from fluxvae.data.photos import CALIBRATION_PHOTOS, EVALUATION_PHOTOS, as_planes
from fluxvae.errors import ReportError, UsageError
from fluxvae.experiments.maker import Maker
from fluxvae.experiments.roundtrip.candidates import (
    Candidate,
    make_recipes,
    open_candidate,
    open_encoder,
    parse_variants,
)
from fluxvae.experiments.roundtrip.job import GAIN, Job, part_label
from fluxvae.experiments.roundtrip.measure import run_in
from fluxvae.experiments.roundtrip.run import most_different, run_roundtrip
from fluxvae.experiments.roundtrip.sources import Source, folder_source, photo_source
from fluxvae.experiments.workers import worker_processes
from fluxvae.networks.build import build_decoder, build_encoder
from fluxvae.networks.weights import Weights, load_weights
from fluxvae.recipes import Recipe, Size, parse_label
from fluxvae.records.ablation import CONVERTED, Part
from fluxvae.records.roundtrip import REFERENCE, Roundtrip
from fluxvae.report.figures import read_report
from fluxvae.report.roundtrip.ablation import attributions
from fluxvae.schema import load, save
from fluxvae.validation.metrics import Meter, make_meter
from tests import artifacts

SIZE = Size(64, 72)
BASE = Recipe("flux2", sizes=(SIZE,))
INT8 = replace(BASE, compression=parse_label("int8-plain"))
SCHEMA = Path(__file__).parents[1] / "docs" / "roundtrip.schema.json"


@pytest.fixture(scope="module")
def decoder() -> Weights:
    return load_weights("flux2", "demo")


@pytest.fixture(scope="module")
def meter() -> Meter:
    """Without LPIPS and CLIP, wherever the tests run."""
    found = make_meter(Path("no such folder"))
    return replace(found, functions={k: f for k, f in found.functions.items() if k != "clip"})


@pytest.fixture(scope="module")
def candidates(decoder: Weights, tmp_path_factory: pytest.TempPathFactory) -> tuple[Candidate, ...]:
    maker = Maker(decoder, tmp_path_factory.mktemp("artifacts"))
    make_recipes((BASE, INT8), maker, workers=1, threads=1)
    return tuple(
        open_candidate(label, maker.path(recipe), decoder, SIZE)
        for label, recipe in (("fp16", BASE), ("int8-plain", INT8))
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two good pictures, one of them larger, and every bad one of a careless folder."""
    place = tmp_path_factory.mktemp("my pictures")
    noise = np.random.Generator(np.random.PCG64(1)).integers(0, 256, (9, 10, 3), np.uint8)
    blurred = Image.fromarray(noise).resize((90, 80), Image.Resampling.BICUBIC)
    blurred.save(place / "b large.png")
    blurred.crop((9, 8, 81, 72)).save(place / "a.jpg", quality=95)
    whole = (place / "a.jpg").read_bytes()
    (place / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (1, 1)).save(place / "dot.png")
    (place / "notes.txt").write_text("nothing to see")
    return place


@pytest.fixture(scope="module")
def make_job(
    decoder: Weights, encoder: Weights, candidates: tuple[Candidate, ...], meter: Meter
) -> Callable[..., Job]:
    """A job in a folder. One candidate is a part too, and the other serves as a part's stand-in."""

    def job(out: Path, own: tuple[Candidate, ...] = candidates) -> Job:
        fp32 = replace(BASE, precision="float32", io_precision="float32")
        part = replace(candidates[1], label=part_label(fp32.name()))
        parts = (Part(CONVERTED, fp32), Part("all", BASE))
        return Job("flux2", SIZE, decoder, encoder, own, (("fp16", parts),), (part,), meter, out)

    return job


@pytest.fixture(scope="module")
def done(
    make_job: Callable[..., Job], folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Roundtrip, Path]:
    out = tmp_path_factory.mktemp("out")
    record = run_roundtrip(make_job(out), folder_source(folder))
    save(record, out / "record.json")
    return record, out


@pytest.fixture
def warm_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker processes from a server that has imported what takes seconds, once."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["coremltools", "torch._dynamo"])
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # threads would not survive a fork
    monkeypatch.setattr("fluxvae.experiments.workers.get_context", lambda _: context)


def _png(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_record_keeps_its_schema_and_reads_back(done: tuple[Roundtrip, Path]) -> None:
    record, out = done
    schema = json.loads(SCHEMA.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(json.loads((out / "record.json").read_text()), schema)
    assert load(Roundtrip, out / "record.json") == record


def test_bad_files_are_named_and_the_rest_is_done(done: tuple[Roundtrip, Path]) -> None:
    record, _ = done
    assert [p.name for p in record.pictures] == ["a.jpg", "b large.png"]
    reasons = {s.name: s.reason for s in record.skipped}
    assert set(reasons) == {"notes.txt", "cut.jpg", "dot.png"}
    assert "no image by its name" in reasons["notes.txt"]
    assert reasons["cut.jpg"].startswith("cannot be read as an image (image file is truncated")
    assert "1 x 1 pixels" in reasons["dot.png"]
    assert record.pictures[1].changes == ("cropped from 80 x 90",)


def test_pictures_are_what_torch_and_the_package_decode(
    done: tuple[Roundtrip, Path],
    decoder: Weights,
    encoder: Weights,
    candidates: tuple[Candidate, ...],
) -> None:
    record, out = done
    for picture in record.pictures:
        original = _png(out / picture.file)
        assert original.shape == (64, 72, 3)
        with torch.no_grad():
            latent = build_encoder(encoder)(torch.from_numpy(as_planes(original)))
            reference = build_decoder(decoder)(latent)[0].permute(1, 2, 0).numpy()
        found = {r.variant: r for r in record.results if r.picture == picture.name}
        assert list(found) == [REFERENCE, "fp16", "int8-plain"]
        shown = _png(out / found[REFERENCE].file)
        assert np.array_equal(shown, np.rint(reference.clip(0, 1) * 255))
        for candidate in candidates:
            result = found[candidate.label]
            image = candidate.decode(latent.numpy())[0].transpose(1, 2, 0)
            assert np.array_equal(_png(out / result.file), np.rint(image.clip(0, 1) * 255))
            error = image.clip(0, 1).astype(float) - reference.clip(0, 1)
            assert result.loss["psnr"] == pytest.approx(-10 * np.log10((error**2).mean()), rel=1e-5)
            total = image.clip(0, 1) - original / 255
            assert result.total["psnr"] == pytest.approx(
                -10 * np.log10((total**2).mean()), rel=1e-5
            )
            difference = _png(out / (result.difference or "")).astype(float)
            assert np.abs(difference - (np.abs(error) * GAIN).clip(0, 1) * 255).max() <= 0.51
            assert _png(out / (result.flip or "")).shape == (64, 72, 3)


def test_reference_has_no_loss_and_fp16_little(done: tuple[Roundtrip, Path]) -> None:
    record, _ = done
    for result in record.results:
        if result.variant == REFERENCE:
            assert (result.loss, result.difference, result.flip) == ({}, None, None)
        else:
            assert ((result.loss["ssim"] or 0) > 0.9995) == (result.variant == "fp16")
            assert (result.loss["ms_ssim"], result.total["ms_ssim"]) == (None, None)  # 64 pixels


def test_variants_carry_their_sizes(done: tuple[Roundtrip, Path]) -> None:
    reference, plain, int8 = done[0].variants
    assert (reference.label, reference.bytes, reference.fraction) == (REFERENCE, None, None)
    assert plain.fraction == 1
    assert 0.50 < (int8.fraction or 0) < 0.51
    assert (plain.evidence, int8.evidence) == ("not compressed", "weights only")


def test_parts_are_measured_on_every_picture(done: tuple[Roundtrip, Path]) -> None:
    record, _ = done
    nothing, everything = record.ablations
    by_variant = {
        label: {r.picture: r.loss for r in record.results if r.variant == label}
        for label in ("fp16", "int8-plain")
    }
    assert (nothing.part, nothing.loss) == (CONVERTED, by_variant["int8-plain"])  # stand-in
    assert (everything.part, everything.loss) == ("all", by_variant["fp16"])


class _Killed(BaseException):
    """As sudden as Ctrl-C."""


def test_both_halves_of_the_trip_are_told_apart(
    make_job: Callable[..., Job], folder: Path, decoder: Weights, encoder: Weights, tmp_path: Path
) -> None:
    made = artifacts.recipe("flux2", "64x72", part="encoder", input="image")
    path = artifacts.save(encoder, made, tmp_path)
    artifact = open_encoder(path, encoder, SIZE)
    job = replace(make_job(tmp_path / "out"), artifact=artifact)
    record = run_roundtrip(job, folder_source(folder))
    trips = [a for a in record.ablations if a.variant == "fp16 behind the encoder's artifact"]
    assert [a.part for a in trips] == ["encoder", "decoder", "all"]
    picture = record.pictures[0]
    planes = as_planes(_png(tmp_path / "out" / picture.file))
    with torch.no_grad():
        latent = build_encoder(encoder)(torch.from_numpy(planes))
        reference, by_encoder = (
            build_decoder(decoder)(z).clamp(0, 1).double()
            for z in (latent, torch.from_numpy(artifact.encode(planes)))
        )
    error = float((by_encoder - reference).square().mean())
    assert trips[0].loss[picture.name]["psnr"] == pytest.approx(-10 * np.log10(error), rel=1e-5)
    result = next(r for r in record.results if (r.picture, r.variant) == (picture.name, "fp16"))
    assert trips[1].loss[picture.name] == result.loss
    parts = [10 ** (-(a.loss[picture.name]["psnr"] or 0) / 10) for a in trips]
    assert 0.5 < parts[2] / (parts[0] + parts[1]) < 2  # errors of two roundings hardly compound
    save(record, tmp_path / "out" / "record.json")
    tables = attributions(read_report(tmp_path / "out" / "record.json"))
    (table,) = [a for a in tables if a.variant == trips[0].variant]
    assert [row.kind for row in table.rows] == ["reference", "part", "part", "sum", "all"]
    assert table.compounding is not None


def test_encoder_of_other_weights_or_part_is_refused(
    encoder: Weights, decoder: Weights, tmp_path: Path
) -> None:
    path = artifacts.save(encoder, artifacts.recipe("flux2", "64", part="encoder"), tmp_path)
    with pytest.raises(UsageError, match=r"encodes 64, not 64x72: pass --size"):
        open_encoder(path, encoder, SIZE)
    other = load_weights("flux2", "random:3", part="encoder")
    with pytest.raises(UsageError, match=r"was made from demo .* own with --encoder"):
        open_encoder(path, other, SIZE)
    made = artifacts.save(decoder, artifacts.recipe("flux2", "64"), tmp_path)
    with pytest.raises(UsageError, match="a decoder turns latents into images"):
        open_encoder(made, encoder, SIZE)


@pytest.mark.parametrize("steps", [1, 3, 6])
def test_killed_run_goes_on_and_ends_with_the_same_bytes(
    done: tuple[Roundtrip, Path],
    make_job: Callable[..., Job],
    candidates: tuple[Candidate, ...],
    folder: Path,
    tmp_path: Path,
    steps: int,
) -> None:
    decoded: list[str] = []

    def counting(candidate: Candidate) -> Candidate:
        def decode(latent: np.ndarray) -> np.ndarray:
            decoded.append(candidate.label)
            return candidate.decode(latent)

        return replace(candidate, decode=decode)

    def kill(number: Iterator[int]) -> Callable[[], None]:
        def check() -> None:
            if next(number) == steps:
                raise _Killed

        return check

    own = tuple(counting(c) for c in candidates)
    with pytest.raises(_Killed):
        run_roundtrip(make_job(tmp_path, own), folder_source(folder), check=kill(iter(range(99))))
    assert not (tmp_path / "record.json").exists()
    record = run_roundtrip(make_job(tmp_path, own), folder_source(folder))
    save(record, tmp_path / "record.json")
    _, whole = done
    assert (tmp_path / "record.json").read_bytes() == (whole / "record.json").read_bytes()
    for file in whole.rglob("*.png"):
        assert (tmp_path / file.relative_to(whole)).read_bytes() == file.read_bytes()
    assert len(decoded) == 4  # two pictures, two variants: nothing twice
    assert not [p for p in tmp_path.rglob("*") if p.name.startswith(".fluxvae-")]


@pytest.mark.usefixtures("warm_workers")
def test_measuring_elsewhere_gives_the_same_bytes(
    done: tuple[Roundtrip, Path], make_job: Callable[..., Job], folder: Path, tmp_path: Path
) -> None:
    with worker_processes(1, 1) as pool:
        record = run_roundtrip(make_job(tmp_path), folder_source(folder), run=run_in(pool, 2))
    _, whole = done
    save(record, tmp_path / "record.json")
    files = [file for file in whole.rglob("*") if file.is_file()]
    assert len(files) > 20
    for file in files:
        assert (tmp_path / file.relative_to(whole)).read_bytes() == file.read_bytes()


@pytest.mark.usefixtures("warm_workers")
def test_several_made_at_once_are_what_one_makes(
    decoder: Weights, candidates: tuple[Candidate, ...], tmp_path: Path
) -> None:
    maker = Maker(decoder, tmp_path, log=print)
    make_recipes((BASE, INT8), maker, workers=2, threads=1)
    paths = [maker.path(recipe) for recipe in (BASE, INT8)]
    made = [open_candidate("", path, decoder, SIZE).digest for path in paths]
    assert made == [candidate.digest for candidate in candidates]


def test_what_is_missing_or_damaged_is_made_again(
    done: tuple[Roundtrip, Path], make_job: Callable[..., Job], folder: Path, tmp_path: Path
) -> None:
    record, whole = done
    shutil.copytree(whole, tmp_path / "out")
    picture = tmp_path / "out" / record.results[1].file
    picture.unlink()
    cell = next((tmp_path / "out" / "cells").rglob("int8*.json"))
    cell.write_text(cell.read_text()[:20])
    assert run_roundtrip(make_job(tmp_path / "out"), folder_source(folder)) == record
    assert picture.read_bytes() == (whole / record.results[1].file).read_bytes()


def test_another_picture_of_the_same_name_is_measured_anew(
    done: tuple[Roundtrip, Path], make_job: Callable[..., Job], folder: Path, tmp_path: Path
) -> None:
    record, whole = done
    shutil.copytree(whole, tmp_path / "out")
    (tmp_path / "in").mkdir()
    Image.new("RGB", (72, 64), (200, 30, 30)).save(tmp_path / "in" / "a.jpg")
    again = run_roundtrip(make_job(tmp_path / "out"), folder_source(tmp_path / "in"))
    assert again.pictures[0].sha256 != record.pictures[0].sha256
    assert again.results[1].loss != record.results[1].loss


def test_no_image_that_can_be_used_names_the_way_out(
    make_job: Callable[..., Job], tmp_path: Path
) -> None:
    with pytest.raises(ReportError, match=r"no images in .*\(found nothing\).*--images photos"):
        folder_source(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ReportError, match=r"found only notes.txt"):
        folder_source(tmp_path)
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    with pytest.raises(ReportError, match=r"none of the images .*1 x 1.* --images photos"):
        run_roundtrip(make_job(tmp_path / "out"), folder_source(tmp_path))
    with pytest.raises(ReportError, match="--images takes photos, soa, or a folder"):
        folder_source(tmp_path / "none")


def test_photos_say_what_calibration_has_seen() -> None:
    source: Source = photo_source()
    assert len(source.inputs) >= 6
    assert [i.name for i in source.inputs[:2]] == [p.name for p in EVALUATION_PHOTOS]
    seen = {p.name for p in CALIBRATION_PHOTOS}
    for one in source.inputs:
        assert one.source.endswith("calibration has seen it" if one.name in seen else "held out")
        image = one.read(Size(512, 512))
        assert image.pixels.shape == (512, 512, 3)


def test_crop_is_where_images_differ_most() -> None:
    first = np.zeros((60, 80, 3), np.uint8)
    second, third = first.copy(), first.copy()
    second[10, 10] = 90  # one large difference
    third[40:44, 60:64] = 20  # a larger sum
    crop = most_different([first, second, third], side=8)
    assert crop.top <= 40
    assert crop.top + 8 >= 44
    assert crop.left <= 60
    assert crop.left + 8 >= 64
    assert asdict(most_different([first, second], side=100)) == {"top": 0, "left": 0, "side": 60}


def test_variants_are_names_or_paths_in_the_given_order() -> None:
    wanted = parse_variants("pal4, some/where/mine.mlpackage,fp16,w8a8-85", BASE)
    assert [w.label for w in wanted] == ["pal4", "mine", "fp16", "w8a8-85"]
    assert wanted[1].path == Path("some/where/mine.mlpackage")
    assert wanted[2].recipe == BASE
    for text, words in (
        ("fp16,float16", "'fp16' is given twice"),
        ("pal4,./PAL4.mlpackage", "is given twice"),
        ("fp15", "'fp15' is not understood"),
        ("w8a8-trained", "convert --qat CHECKPOINT"),
        (" , ", "names none"),
    ):
        with pytest.raises(UsageError, match=words):
            parse_variants(text, BASE)


def test_artifacts_of_other_weights_or_sizes_are_refused(
    candidates: tuple[Candidate, ...], decoder: Weights, tmp_path_factory: pytest.TempPathFactory
) -> None:
    place = next(tmp_path_factory.getbasetemp().glob("artifacts*"))
    path = place / (candidates[0].variant.artifact or "")
    with pytest.raises(UsageError, match="decodes 64x72, not 64: pass --size"):
        open_candidate("fp16", path, decoder, Size(64, 64))
    with pytest.raises(UsageError, match=r"was made from demo .*random:3"):
        open_candidate("fp16", path, load_weights("flux2", "random:3"), SIZE)


def test_real_fp16_keeps_every_photo(shared: Path, meter: Meter, tmp_path: Path) -> None:
    """An SSIM of 0.997 is published for another VAE's conversion; ours shall keep 0.9995."""
    weights = load_weights("flux2", str(shared / "weights" / "taef2_decoder.pth"))
    encoder = load_weights("flux2", str(shared / "weights" / "taef2_encoder.pth"), part="encoder")
    size = Size(128, 128)
    path = artifacts.save(weights, Recipe("flux2", sizes=(size,)), tmp_path)
    own = (open_candidate("fp16", path, weights, size),)
    job = Job("flux2", size, weights, encoder, own, (), (), meter, tmp_path / "out")
    record = run_roundtrip(job, photo_source())
    found = {r.picture: r.loss["ssim"] or 0 for r in record.results if r.variant == "fp16"}
    assert len(found) >= 6
    assert min(found.values()) >= 0.9995, found
