"""A network that is only in the catalogue: what a newcomer adds is one entry (CONTRIBUTING.md).

``flux0`` is tiny and takes 8 channels. Nothing else knows it: whatever it takes to convert and
judge it must come from its entry.
"""

from pathlib import Path

import pytest

from fluxvae.artifact.open import open_artifact
from fluxvae.artifact.save import save_artifact
from fluxvae.compress import compress
from fluxvae.errors import UsageError, WeightsError
from fluxvae.networks.build import build_decoder
from fluxvae.networks.catalog import CATALOG, Decoder, HubFile, LatentContract
from fluxvae.networks.structure import conv_sites
from fluxvae.networks.weights import load_weights
from fluxvae.recipes import Recipe, Size
from fluxvae.recipes.compression import parse_label
from fluxvae.validation.validate import validate

FLUX0 = Decoder(
    variant="flux0",
    kind="tiny",
    title="TAEF0, tiny decoder of nothing",
    author="A newcomer",
    licence="MIT",
    hub=HubFile(
        repo="newcomer/taef0", file="taef0.safetensors", revision="0" * 40, sha256="0" * 64
    ),
    contract=LatentContract(
        space="flux0-sampler", wants="FLUX.0's latent as the sampler leaves it.",
        channels=8, scale=8,
    ),
)  # fmt: skip
SIZES = (Size(64, 64),)


@pytest.fixture(autouse=True)
def _flux0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CATALOG, "flux0", FLUX0)


def test_new_network_is_converted_and_judged(tmp_path: Path) -> None:
    weights = load_weights("flux0", "random:1")
    assert weights.tensors["1.weight"].shape == (64, 8, 3, 3)
    recipe = Recipe("flux0", sizes=SIZES)
    (saved,) = save_artifact(weights, recipe, tmp_path / f"{recipe.name()}.mlpackage")
    assert saved.name.startswith("flux0_tiny_decoder_")
    record = open_artifact(saved).record
    assert (record.recipe.variant, record.contract.channels) == ("flux0", 8)
    report = validate(saved, weights, encoder=None, backend="reference")
    assert report.passed


def test_new_network_describes_itself_to_compression() -> None:
    weights = load_weights("flux0", "random:1")
    recipe = Recipe("flux0", sizes=SIZES, compression=parse_label("int4-channel-plain")).resolved()
    made = compress(weights, recipe, None).compressed
    sites = [site.name for site in conv_sites(build_decoder(weights))]
    assert [*made.weights, "19"] == sites  # 19 is too small


def test_latents_of_another_form_are_refused_by_name() -> None:
    with pytest.raises(UsageError, match="--latents packed of flux0 is not known"):
        Recipe("flux0", sizes=SIZES, latents="packed")


def test_weights_of_another_network_are_told_apart(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "taef1.safetensors"
    save_file(dict(load_weights("flux1", "demo").tensors), path)
    with pytest.raises(WeightsError, match=r"TAEF1's \(16 latent channels\), not flux0's"):
        load_weights("flux0", str(path))
