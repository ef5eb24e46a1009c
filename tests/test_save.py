"""What ``save_artifact`` leaves on the disk."""

import json
from pathlib import Path

import pytest

from fluxvae.artifact.open import open_artifact
from fluxvae.artifact.save import save_artifact
from fluxvae.networks.weights import load_weights
from fluxvae.recipes import Recipe, Size
from tests.conversion_folder import FOLDER

# FLUX.1's tokens through two halves: both packages are of another kind than a whole decoder's.
TOKENS = Recipe("flux1", sizes=(Size(64, 64),), chunks=2, latents="packed")


def files(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two folders with the artifact of ``TOKENS``, each converted on its own."""
    first, second = (tmp_path_factory.mktemp("save") for _ in range(2))
    with pytest.MonkeyPatch.context() as patched:
        patched.delenv(FOLDER)  # no copies
        for folder in (first, second):
            save_artifact(load_weights("flux1", "demo"), TOKENS, folder / "x.mlpackage")
    return first, second


def test_the_same_recipe_gives_the_same_bytes_twice(twice: tuple[Path, Path]) -> None:
    first, second = map(files, twice)
    assert len(first) == 8  # program, weights, manifest and torch's map of names, of each half
    assert first == second


def test_identifiers_of_a_manifest_are_of_different_contents(twice: tuple[Path, Path]) -> None:
    found = set()
    for manifest in twice[0].rglob("Manifest.json"):
        data = json.loads(manifest.read_bytes())
        assert data["rootModelIdentifier"] in data["itemInfoEntries"]
        found |= set(data["itemInfoEntries"])
    assert len(found) == 4  # program and weights of two halves


def test_halves_that_take_tokens_have_the_shapes_of_tokens(twice: tuple[Path, Path]) -> None:
    opened = open_artifact(twice[0] / "x_part1of2.mlpackage")
    (latent,) = opened.programs[0].signatures["main"].inputs
    assert latent.shape == (1, 16, 64)
