"""Floors of compressed artifacts: sound ones lie above, what is much coarser lies below."""

from dataclasses import replace

import pytest
import torch

from fluxvae.artifact.record import make_record
from fluxvae.compress import compress
from fluxvae.compress.fake import simulate
from fluxvae.data.photos import EVALUATION_PHOTOS, photo_image
from fluxvae.networks.build import build_decoder, build_encoder
from fluxvae.networks.weights import load_weights
from fluxvae.recipes import Compression, parse_label
from fluxvae.validation.limits import MARGIN, compressed_floor
from fluxvae.validation.metrics import compare
from fluxvae.validation.validate import limit_for
from tests.artifacts import recipe

KINDS = ("photo", "user", "normal", "extreme")


@pytest.mark.parametrize("kind", KINDS)
def test_more_bits_have_to_keep_more(kind: str) -> None:
    floors = [compressed_floor(parse_label(f"pal{bits}"), kind) for bits in (1, 2, 3, 4, 6, 8)]
    assert floors == sorted(floors)
    assert len(set(floors)) == len(floors)


def test_bits_chosen_for_a_psnr_keep_it_on_photos() -> None:
    asked = Compression("mixed", budget="40dB")
    assert [compressed_floor(asked, kind) for kind in ("photo", "user")] == [40.0, 40.0]
    assert compressed_floor(asked, "normal") < 40.0
    assert compressed_floor(replace(asked, budget="900KB"), "photo") == pytest.approx(10.0 - MARGIN)


def test_compression_never_asks_for_more_than_the_same_artifact_without() -> None:
    weights = load_weights("flux1", "demo")
    asked = Compression("mixed", budget="70dB")
    for output, bound in (("tensor", 60.0), ("image", 57.0)):
        made = recipe("flux1", output=output, compression=asked)
        assert limit_for(make_record(made, weights), "photo").bound == bound
    pal8 = parse_label("pal8")
    exact = recipe("flux1", precision="float32", compression=pal8)
    limit = limit_for(make_record(exact, weights), "photo")
    assert (limit.metric, limit.bound) == ("psnr_db", compressed_floor(pal8, "photo"))


def test_a_sound_decoder_lies_above_and_one_of_fewer_bits_below() -> None:
    weights = load_weights("flux1", "demo")
    decoder = build_decoder(weights)
    encoder = build_encoder(load_weights("flux1", "demo", part="encoder"))
    six = limit_for(make_record(recipe("flux1", compression=parse_label("pal6")), weights), "photo")

    def holds(label: str) -> list[bool]:
        made = recipe("flux1", compression=parse_label(label))
        twin = simulate(compress(weights, made, None).compressed, "float16")
        return [six.holds(compare(twin(z).numpy(), decoder(z).numpy())) for z in latents]

    images = [torch.from_numpy(photo_image(p, 64, 64)) for p in EVALUATION_PHOTOS]
    latents = [encoder(image) for image in images]
    assert holds("pal6-tensor-plain") == [True, True]
    assert holds("pal4-tensor-plain") == [False, False]
