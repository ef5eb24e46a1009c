"""Weights and inputs of a matrix: found, checked against what the folder knows, kept for all cells.

Nothing is loaded where nothing changed, so that a finished matrix is known as such at once.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fluxvae.experiments.file import Matrix
from fluxvae.experiments.inputs import (
    CALIBRATION,
    DecoderWeights,
    Inputs,
    check_same,
    describe,
    keep_inputs,
    missing_groups,
    read_inputs,
    read_weights,
    unchanged,
    write_weights,
)
from fluxvae.experiments.plan import decoder_name, needs_calibration
from fluxvae.records.experiment import Cell

if TYPE_CHECKING:
    from fluxvae.networks.weights import Weights

Say = Callable[[str], None]


@dataclass
class Sources:
    """What the cells are made from. ``loaded``: weights that were needed so far, by decoder."""

    matrix: Matrix
    offline: bool
    say: Say
    decoders: dict[str, DecoderWeights] = field(default_factory=dict)
    inputs: Inputs = field(default_factory=lambda: Inputs({}))
    loaded: dict[str, "Weights"] = field(default_factory=dict)

    def weights(self, name: str) -> "Weights":
        """A decoder's weights, loaded at most once. Raises as ``load_weights``; MatrixError when
        they are not those that the folder knows."""
        from fluxvae.networks.weights import load_weights

        if name not in self.loaded:
            variant, kind = _variant_and_kind(name)
            spec = self.matrix.weights.get(name)
            self.say(f"loading {spec or 'pinned'} weights of {name}")
            weights = load_weights(variant, spec, kind=kind, offline=self.offline)
            for note in weights.notes:
                self.say(f"note: {note}")
            self.loaded[name] = weights
        return self.loaded[name]

    def weights_file(self, name: str, folder: Path) -> Path:
        """The weights as a file that a worker reads, made at most once."""
        from fluxvae.experiments.supply import save_weights_file

        path = folder / f"weights-{name}.safetensors"
        if not path.exists():
            weights = self.weights(name)
            known = self.decoders[name]
            check_same(name, known, replace(known, digest=weights.digest))
            save_weights_file(weights, path)
        return path

    def encoder(self, name: str) -> "Weights | None":
        """The encoder that makes a decoder's photo latents, if there is one."""
        from fluxvae.networks.weights import find_encoder, load_weights

        variant, kind = _variant_and_kind(name)
        spec = self.matrix.encoders.get(name)
        if spec is not None:
            return load_weights(variant, spec, kind=kind, part="encoder", offline=self.offline)
        return find_encoder(variant, self.matrix.weights.get(name), kind=kind, offline=self.offline)


def find_sources(folder: Path, matrix: Matrix, *, offline: bool, say: Say) -> Sources:
    """The matrix' weights and inputs, kept in ``folder``.

    Raises MatrixError when they are not those that the folder was begun with, or were changed; and
    as ``load_weights``.
    """
    sources = Sources(matrix, offline, say)
    record, inputs = read_weights(folder), read_inputs(folder)
    sources.decoders = dict(record.decoders) if record is not None else {}
    missing = missing_groups(inputs, list(_groups(matrix.cells)))
    changed = record is None
    for name in dict.fromkeys(map(decoder_name, matrix.cells)):
        old = sources.decoders.get(name)
        asked = (matrix.weights.get(name), matrix.encoders.get(name))
        same = old is not None and record is not None and unchanged(old, *asked, record.fluxvae)
        groups = [group for decoder, group in missing if decoder == name]
        if same and (not groups or (groups == [CALIBRATION] and _no_encoder(old))):
            continue
        weights, encoder = sources.weights(name), sources.encoder(name)
        source = (weights.source.name, weights.source.kind)
        new = describe(*asked, source, (weights.digest, encoder.digest if encoder else None))
        if old is not None:
            check_same(name, old, new)
        sources.decoders[name], changed = new, True
        latents = dict(_latents(name, groups, weights, encoder, say))
        if latents:
            inputs = keep_inputs(folder, inputs, latents)
    if changed:
        write_weights(folder, sources.decoders)
    if inputs is not None:
        sources.inputs = inputs
    return sources


def _no_encoder(old: DecoderWeights | None) -> bool:
    return old is not None and old.encoder_digest is None


def _groups(cells: tuple[Cell, ...]) -> Iterator[tuple[str, str]]:
    """(decoder, size) of everything that is judged, (decoder, calibration) where it is needed."""
    for cell in cells:
        for size in cell.sizes.split(","):
            yield decoder_name(cell), size
        if cell.decoder == "tiny" and needs_calibration(cell):
            yield decoder_name(cell), CALIBRATION


def _latents(
    name: str, groups: list[str], weights: "Weights", encoder: "Weights | None", say: Say
) -> Iterator[tuple[str, tuple[str, np.ndarray]]]:
    """The cases of ``fluxvae.validation.validate`` at each size; other photos to compress with."""
    from fluxvae.artifact.record import make_record
    from fluxvae.data.calibration import photo_calibration
    from fluxvae.data.spaces import latent_transform
    from fluxvae.recipes import Recipe, parse_sizes
    from fluxvae.validation.validate import build_cases

    variant, kind = _variant_and_kind(name)
    for group in groups:
        say(f"latents of {name}: {group}")
        if group == CALIBRATION:
            for index, latent in enumerate(photo_calibration(encoder).latents if encoder else ()):
                yield f"{name}/{CALIBRATION}/{index:02}", (CALIBRATION, latent)
            continue
        (size,) = parse_sizes(group)
        recipe = Recipe(variant, decoder=kind, sizes=(size,))
        record = make_record(recipe, weights)
        for case in build_cases(record, size, encoder, (), latent_transform(recipe, weights)):
            yield f"{name}/{group}/{case.name}", (case.kind, case.values)


def _variant_and_kind(name: str) -> tuple[str, str]:
    variant, _, kind = name.partition("-")
    return variant, kind or "tiny"
