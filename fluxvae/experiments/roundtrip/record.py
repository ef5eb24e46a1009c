"""The record of a round trip, from what was measured."""

from collections.abc import Iterable, Iterator, Sequence

from fluxvae.experiments.roundtrip.candidates import EncoderArtifact, with_fractions
from fluxvae.experiments.roundtrip.job import ENCODER, GAIN, Job, part_label, tools
from fluxvae.experiments.roundtrip.sources import Source
from fluxvae.records.ablation import ALL
from fluxvae.records.roundtrip import (
    REFERENCE,
    Ablation,
    Figures,
    Picture,
    Result,
    Roundtrip,
    Skipped,
    Variant,
)


def record_of(
    job: Job,
    source: Source,
    pictures: Sequence[Picture],
    skipped: Sequence[Skipped],
    results: Sequence[Result],
    parts: dict[str, dict[str, Figures]],
) -> Roundtrip:
    """All of it. ``parts``: losses of what is a part only, by picture and label."""
    reference = Variant(REFERENCE, "the float32 PyTorch decoder", None, None, None, None, None)
    return Roundtrip(
        family=job.family,
        size=str(job.size),
        weights=job.weights.source.name,
        weights_digest=job.weights.digest,
        encoder=job.encoder.source.name,
        encoder_digest=job.encoder.digest,
        source=source.name,
        gain=GAIN,
        tools=tools(),
        metrics=job.meter.metrics,
        pictures=tuple(pictures),
        skipped=tuple(skipped),
        variants=(reference, *with_fractions([c.variant for c in job.candidates])),
        results=tuple(results),
        ablations=tuple(_ablations(job, results, parts)),
    )


def _ablations(
    job: Job, results: Sequence[Result], parts: dict[str, dict[str, Figures]]
) -> Iterable[Ablation]:
    """Each variant's parts in order; those that are variants themselves have their results."""
    labels = {c.recipe: c.label for c in job.candidates}
    for variant, own in job.ablations:
        for part in own:
            label = labels.get(part.recipe)
            if label is not None:
                loss = {r.picture: r.loss for r in results if r.variant == label}
            else:
                loss = {p: figures[part_label(part.recipe.name())] for p, figures in parts.items()}
            yield Ablation(variant, part.name, part.recipe.to_dict(), loss)
    if job.artifact is not None:
        yield from _trips(job, job.artifact, results, parts)


def _trips(
    job: Job,
    encoder: EncoderArtifact,
    results: Sequence[Result],
    parts: dict[str, dict[str, Figures]],
) -> Iterator[Ablation]:
    """For each variant: the encoder's artifact alone, the decoder's alone, and both."""
    for candidate in job.candidates:
        name = f"{candidate.label} behind the encoder's artifact"
        recipe, label = candidate.recipe.to_dict(), candidate.label
        alone, both = (part_label(n) for n in (ENCODER, f"{ENCODER}-{label}"))
        decoder = {r.picture: r.loss for r in results if r.variant == label}
        losses = ({p: found[key] for p, found in parts.items()} for key in (alone, both))
        first, together = losses
        yield Ablation(name, ENCODER, encoder.recipe.to_dict(), first)
        yield Ablation(name, "decoder", recipe, decoder)
        yield Ablation(name, ALL, recipe, together)
