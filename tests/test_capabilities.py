"""Every cell of docs/capabilities.md that says yes is made, saved and held against PyTorch.

What one model can have at once is made at once: a group of rows whose options do not contradict
each other. Compression here is the plain method, at its cheapest; the others are in tests/compress.
"""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fluxvae.artifact.open import open_artifact
from fluxvae.artifact.record import Record
from fluxvae.artifact.save import save_artifact
from fluxvae.compress import compress
from fluxvae.data.calibration import calibration_of
from fluxvae.data.photos import CALIBRATION_PHOTOS, photo_image
from fluxvae.data.spaces import LatentTransform, latent_transform
from fluxvae.errors import UsageError
from fluxvae.networks.weights import Weights, load_weights
from fluxvae.recipes import Compression, Recipe, Size, artifact_name, artifact_paths
from fluxvae.recipes.capabilities import (
    COMMANDS,
    NETWORKS,
    ROWS,
    Network,
    Row,
    reason,
    recipe_of,
    refuse_command,
)
from fluxvae.validation.validate import Case, build_cases, judge
from tests.conversion_cache import install
from tests.kl_hot import short_stages, small_weights
from tests.test_docs import script


def network_weights(network: Network) -> Weights:
    """Demo weights, or the narrowest KL network's."""
    if network.kind == "tiny":
        return load_weights(network.variant, "demo", part=network.part)
    return small_weights(network.variant, network.part, network.kind)


def groups(network: Network) -> list[dict[str, Any]]:
    """Fields of recipes that have every row of the network between them."""
    found: list[dict[str, Any]] = []
    for row in ROWS:
        if reason(row, network) is None and not any(_joined(network, g, row) for g in found):
            found.append(dict(row.fields))
    return found


def _joined(network: Network, group: dict[str, Any], row: Row) -> bool:
    """Add a row to a group if both can be in one recipe."""
    if any(group.get(key, value) != value for key, value in row.fields.items()):
        return False
    try:
        recipe_of(network, group | dict(row.fields))
    except UsageError:
        return False
    group.update(row.fields)
    return True


def smallest(network: Network, fields: Mapping[str, Any]) -> Recipe:
    """The recipe at the least size, compressed by the plain method."""
    made = recipe_of(network, fields)
    if isinstance(made.compression, Compression):
        made = replace(made, compression=replace(made.compression, method="plain"))
    return made


def title(network: Network) -> str:
    return network.title.replace(" ", "-")


@pytest.mark.parametrize("network", NETWORKS, ids=title)
def test_what_the_table_says_works_is_made_and_right(network: Network, tmp_path: Path) -> None:
    for index, fields in enumerate(groups(network)):
        made = smallest(network, fields)
        path = tmp_path / str(index) / artifact_name(made, "demo")
        path.parent.mkdir()
        with nullcontext() if made.tile else short_stages():  # a tile's halo is of whole stages
            weights = network_weights(network)
            _make(weights, made, path)
            artifact = open_artifact(artifact_paths(path, made.chunks)[0])
            transform = latent_transform(made, weights)
            first = partial(_first_case, artifact.record, transform)
            for result, _ in judge(artifact, weights, first, backend="reference"):
                assert result.passed, f"{made.name()}: {result.metrics} {result.limit}"


def _first_case(record: Record, transform: LatentTransform, size: Size) -> list[Case]:
    """Noise for a decoder, a photo for an encoder."""
    return [next(build_cases(record, size, None, (), transform))]


def _make(weights: Weights, made: Recipe, path: Path) -> None:
    install()
    compressed = None
    if made.compression is not None:
        if made.encodes:
            given = photo_image(CALIBRATION_PHOTOS[0], 64, 64)
        else:
            shape = (1, weights.contract.channels, 8, 8)
            given = np.random.Generator(np.random.PCG64(1)).standard_normal(shape, np.float32)
        compressed = compress(weights, made, calibration_of("test", [given])).compressed
    save_artifact(weights, made, path, compressed=compressed)


@pytest.mark.parametrize("network", NETWORKS, ids=title)
def test_what_cannot_be_has_a_reason(network: Network) -> None:
    for row in ROWS:
        why = reason(row, network)
        assert why is None or len(why.split()) > 4
    for command in COMMANDS:
        why = reason(Row("", "", command=command), network)
        if why is not None:
            with pytest.raises(UsageError, match=r"a model\.mlpackage: an? "):
                refuse_command(command, network.kind, network.part, "a model.mlpackage")


def test_the_page_is_current() -> None:
    module = script("generate_capabilities_doc")
    page = Path(module.__file__).parents[1] / "docs" / "capabilities.md"
    assert page.read_text(encoding="utf-8") == module.document(), "run `make docs`"
