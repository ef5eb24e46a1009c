"""W8A8 after training: which convolutions, how well, and that the saved package does the same."""

import itertools
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fluxvae.compress.equalize import apply_scales, channel_groups
from fluxvae.compress.fake import simulate
from fluxvae.compress.forms import CompressedDecoder, Scheme
from fluxvae.compress.plain import plain_form
from fluxvae.compress.w8a8 import Effort, choose_int8, int8_share, quantize_w8a8
from fluxvae.compress.write import write_compressed
from fluxvae.data.calibration import Calibration
from fluxvae.data.photos import EVALUATION_PHOTOS, photo_image
from fluxvae.errors import CompressionError
from fluxvae.mil.executor import Session
from fluxvae.mil.package import read_package
from fluxvae.networks.build import build_decoder, build_encoder
from fluxvae.networks.structure import Site, conv_sites
from fluxvae.networks.weights import load_weights
from fluxvae.recipes.compression import Compression
from tests.artifacts import convert, recipe
from tests.compress.packages import small_decoder

QUICK = Effort(samples=512, steps=45, positions=2000)


def latents(count: int, seed: int) -> tuple[np.ndarray, ...]:
    generator = np.random.Generator(np.random.PCG64(seed))
    return tuple(generator.normal(size=(1, 4, 5, 6)).astype(np.float32) for _ in range(count))


CALIBRATION = Calibration("numbers", "d1", latents(6, 0))
HELD_OUT = latents(3, 1)


@pytest.fixture(scope="module")
def decoder() -> nn.Sequential:
    """Of small_decoder's kind, its channels as unequal as those of trained decoders."""
    plain = small_decoder()
    generator = torch.Generator().manual_seed(2)
    scales = {
        group.name: torch.randn(
            plain.get_submodule(group.writers[0]).weight.shape[0], generator=generator
        ).exp()
        for group in channel_groups(plain)
    }
    return apply_scales(plain, scales)


def psnr(decoder: nn.Sequential, made: CompressedDecoder) -> float:
    """Of held-out pictures, over their own range (random weights do not give 0 to 1)."""
    twin = simulate(made, "float16")
    tensors = [torch.from_numpy(z) for z in HELD_OUT]
    pictures = [decoder(z) for z in tensors]
    error = np.mean(
        [float((twin(z) - p).square().mean()) for z, p in zip(tensors, pictures, strict=True)]
    )
    return -10 * math.log10(error / float(torch.stack(pictures).var()))


Quantize = Callable[..., CompressedDecoder]


@pytest.fixture(scope="module")
def quantized(decoder: nn.Sequential) -> Quantize:
    """``quantized(**fields of a Compression)``, each made once; ``again`` for a second time."""
    made: dict[tuple, CompressedDecoder] = {}

    def make(again: bool = False, **how: object) -> CompressedDecoder:
        key = tuple(sorted(how.items()))
        if again or key not in made:
            compression = Compression("w8a8", **how)  # type: ignore[arg-type]
            made[key] = quantize_w8a8(decoder, compression, "float16", CALIBRATION, effort=QUICK)
        return made[key]

    return make


@pytest.mark.parametrize("activations", ["zero-point", "symmetric"])
def test_compensated_is_far_better_than_plain_at_the_same_share(
    decoder: nn.Sequential, quantized: Quantize, activations: str
) -> None:
    plain = quantized(method="plain", activations=activations)
    better = quantized(int8_share=1.0, activations=activations)
    assert plain.weights.keys() == better.weights.keys() == {s.name for s in conv_sites(decoder)}
    assert psnr(decoder, better) > psnr(decoder, plain) + 6  # measured: 12.3 and 13.5 dB


def test_share_is_met_and_told_and_what_stays_float_pays(
    decoder: nn.Sequential, quantized: Quantize
) -> None:
    sites = conv_sites(decoder)
    whole, part = quantized(int8_share=1.0), quantized(int8_share=0.7)
    kept = [site.name for site in sites if site.name not in part.weights]
    assert part.notes["float"] == kept
    assert part.notes["int8_share"] == int8_share(sites, part.weights)
    assert 0.7 <= int8_share(sites, part.weights) < 1
    assert part.activations.keys() == part.weights.keys()
    assert part.notes["calibration"] == {"name": "numbers", "digest": "d1"}
    assert psnr(decoder, part) > psnr(decoder, whole) + 6  # measured: 12.4 dB


def test_kinds_of_activations(quantized: Quantize) -> None:
    signed = quantized(method="plain", activations="symmetric").activations.values()
    assert {(a.dtype, a.zero_point) for a in signed} == {("int8", 0)}
    offset = quantized(method="plain").activations
    assert {a.dtype for a in offset.values()} == {"uint8"}
    assert offset["10.conv.4"].zero_point == 0  # after a ReLU
    assert offset["1"].zero_point > 0  # the latent


def test_same_call_same_decoder(quantized: Quantize) -> None:
    first = quantized(int8_share=0.7)
    again = quantized(again=True, int8_share=0.7)
    assert first.activations == again.activations
    for name, form in first.weights.items():
        assert np.array_equal(form.data, again.weights[name].data)  # type: ignore[union-attr]
    state = again.decoder.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in first.decoder.state_dict().items())


def test_no_latents_is_refused(decoder: nn.Sequential) -> None:
    with pytest.raises(CompressionError, match="calibration latents"):
        quantize_w8a8(decoder, Compression("w8a8"), "float16", Calibration("none", "", ()))


@given(
    st.lists(st.tuples(st.integers(1, 9), st.floats(0, 1)), min_size=1, max_size=7),
    st.floats(0.05, 1),
)
def test_the_choice_is_the_best_there_is(parts: list[tuple[int, float]], share: float) -> None:
    """Against every subset."""
    sites = [Site(str(i), "block", 1, macs, (1, 1, 1, 1)) for i, (macs, _) in enumerate(parts)]
    errors = {str(i): error for i, (_, error) in enumerate(parts)}
    chosen = choose_int8(sites, errors, share)
    assert int8_share(sites, dict.fromkeys(chosen)) >= share - 1e-9
    allowed = [
        sum(errors[site.name] for site in subset)
        for size in range(len(sites) + 1)
        for subset in itertools.combinations(sites, size)
        if int8_share(sites, {site.name: 0 for site in subset}) >= share
    ]
    assert sum(errors[name] for name in chosen) == pytest.approx(min(allowed))


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Sequential, Path, Path]:
    """flux2's demo decoder, its package at 64 x 64 and a folder."""
    weights = load_weights("flux2", "demo")
    folder = tmp_path_factory.mktemp("fidelity")
    made = recipe("flux2", "64", target="iOS18")
    return build_decoder(weights), convert(weights, made, folder), folder


def photo_latents() -> list[np.ndarray]:
    encoder = build_encoder(load_weights("flux2", "demo", part="encoder"))
    images = [torch.from_numpy(photo_image(p, 64, 64)) for p in EVALUATION_PHOTOS]
    return [encoder(image).numpy() for image in images]


@pytest.mark.parametrize("kind", ["palette", "int8", "w8a8"])
def test_the_executor_runs_the_package_as_simulated(
    converted: tuple[nn.Sequential, Path, Path], kind: str
) -> None:
    """PSNR against the float32 decoder, of the saved package and of the torch twin: 0.2 dB."""
    decoder, package, folder = converted
    inputs = photo_latents()
    if kind == "w8a8":
        photos = Calibration("photos", "", tuple(inputs))
        made = quantize_w8a8(decoder, Compression("w8a8", method="plain"), "float16", photos)
    else:
        scheme = {
            "palette": Scheme("palette", 4, "channel-scale"),
            "int8": Scheme("int8", 8, "channel"),
        }[kind]
        forms = {
            site.name: plain_form(decoder.get_submodule(site.name).weight.numpy(), scheme)
            for site in conv_sites(decoder)
        }
        made = CompressedDecoder(decoder, forms)
    path = Path(shutil.copytree(package, folder / f"{kind}.mlpackage"))
    write_compressed(path, made, "float16")
    session, twin = Session(read_package(path)), simulate(made, "float16")
    executed, simulated = [], []
    for latent in inputs:
        expected = decoder(torch.from_numpy(latent)).numpy()
        (image,) = session.run({"latent": latent}).values()
        executed.append(decibels(np.asarray(image), expected))
        simulated.append(decibels(twin(torch.from_numpy(latent)).numpy(), expected))
    assert np.mean(executed) < 50  # there is an error to agree on
    assert np.mean(executed) == pytest.approx(np.mean(simulated), abs=0.2)  # measured: 0.04


def decibels(found: np.ndarray, expected: np.ndarray) -> float:
    return float(-10 * np.log10(np.square(found.astype(np.float64) - expected).mean()))
