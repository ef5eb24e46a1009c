"""Bits chosen layer by layer, within a size or for a picture of a wished-for quality.

Every choice of bits has a predicted error of the picture (``sensitivity``). For a size the choice
is exact under that prediction. For a PSNR the prediction says which layers deserve bits, and
decoders really compressed say how many bits there must be: each trial fits the weights on one half
of the latents and is measured on the other, and the other way round.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import nn

from fluxvae.compress.forms import CompressedDecoder, Scheme
from fluxvae.compress.plain import Log, by_schemes
from fluxvae.compress.sensitivity import (
    Option,
    best_within,
    measure_options,
    middle,
    other_bytes,
)
from fluxvae.data.calibration import Calibration
from fluxvae.errors import CompressionError
from fluxvae.networks.structure import conv_sites, input_scale
from fluxvae.recipes.compression import Compression, parse_budget
from fluxvae.records.statistics import decibels

CHOICES = {"channel-scale": (2, 3, 4, 6, 8), "tensor": (2, 4, 6, 8)}  # 3 bits came with iOS18
TRIALS = 4
CLOSE = 0.15  # dB above the wished-for PSNR that end the search
MEASURED = 32  # of latent pixels a side: trials are measured on this middle of each latent
FORMAT = 1


@dataclass(frozen=True)
class Allocation:
    """Bits of each convolution's table, by module name; ``granularity`` as resolved.

    ``measured`` is plain data about how it was chosen: predicted bytes and trials. To be replayed
    on any weights of the same decoder.
    """

    compression: Compression
    granularity: str
    bits: Mapping[str, int]
    measured: Mapping[str, object] = field(default_factory=dict)

    def to_dict(self) -> dict[str, object]:
        """JSON-ready; ``from_dict`` reads it back."""
        return {
            "format": FORMAT,
            "budget": self.compression.budget,
            "method": self.compression.method,
            "granularity": self.granularity,
            "bits": dict(self.bits),
            "measured": dict(self.measured),
        }

    @classmethod
    def from_dict(cls, data: object) -> "Allocation":
        """Raises ValueError for what is not an allocation, UsageError for an impossible one."""
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ValueError(f"expected an object with format {FORMAT}")
        bits, measured = data.get("bits"), data.get("measured", {})
        texts = [data.get(name) for name in ("budget", "method", "granularity")]
        if not (isinstance(bits, dict) and bits and isinstance(measured, dict)):
            raise ValueError("expected bits by convolution, and an object of measurements")
        if not all(isinstance(text, str) for text in texts):
            raise ValueError("expected the texts budget, method and granularity")
        budget, method, granularity = (str(text) for text in texts)
        compression = Compression("mixed", budget=budget, method=method, granularity=granularity)
        known = CHOICES[granularity]
        if any(type(value) is not int or value not in known for value in bits.values()):
            raise ValueError(f"expected bits of {list(known)} for granularity {granularity}")
        return cls(compression, granularity, dict(bits), dict(measured))

    def schemes(self, decoder: nn.Module, keep: Collection[str] = ()) -> dict[str, Scheme]:
        """By module name, but of those to ``keep`` float. Raises CompressionError where the decoder
        has other convolutions.
        """
        names = [site.name for site in conv_sites(decoder) if site.name not in keep]
        if set(names) != set(self.bits):
            odd = sorted(set(names) ^ set(self.bits))
            raise CompressionError(
                f"the allocation is for another decoder: it and these weights differ in {odd[0]}; "
                "make one for these with --mixed-bits"
            )
        return {name: Scheme("palette", self.bits[name], self.granularity) for name in names}


def compress_allocation(
    decoder: nn.Module,
    allocation: Allocation,
    precision: str,
    calibration: Calibration,
    *,
    log: Log = lambda _line: None,
    keep: Collection[str] = (),
) -> CompressedDecoder:
    """The decoder with each convolution's bits as allocated, fitted on all latents.

    ``notes["allocation"]`` is the allocation's dictionary. Raises CompressionError where the
    decoder has other convolutions, and without latents.
    """
    method, schemes = allocation.compression.method, allocation.schemes(decoder, keep)
    made = by_schemes(decoder, schemes, method, precision, calibration.latents, log)
    notes = {
        "method": method,
        "calibration": {"name": calibration.name, "digest": calibration.digest},
        "allocation": allocation.to_dict(),
    }
    return replace(made, notes=notes)


def allocate(
    decoder: nn.Module,
    compression: Compression,
    granularity: str,
    precision: str,
    calibration: Calibration,
    *,
    log: Log = lambda _line: None,
    keep: Collection[str] = (),
    folded: Sequence[nn.Conv2d] = (),
) -> Allocation:
    """Bits for every convolution of ``decoder`` but those to ``keep``, that meet the budget.

    ``folded``: what stands in the program for those to ``keep``, in float.

    A size: at most that many bytes of weight file, tables, biases, records and padding included.
    A PSNR: the smallest file found that meets it in trials; where none does, the best, with
    ``measured["missed_by_db"]`` and a line to ``log``. Raises CompressionError for a size below
    what the fewest bits take, and without latents.
    """
    if not calibration.latents:
        raise CompressionError("mixed bits are chosen by looking at latents: got none")
    assert compression.budget is not None
    budget = parse_budget(compression.budget)
    log(f"mixed bits: measuring layers on {len(calibration.latents)} latents")
    options = measure_options(
        decoder, granularity, CHOICES[granularity], precision, calibration.latents
    )
    options = {name: found for name, found in options.items() if name not in keep}
    rest = other_bytes(decoder, precision, keep, folded)
    if budget.unit == "dB":
        trial = _Trials(decoder, compression.method, precision, calibration.latents, log)
        chosen, measured = _search(options, rest, budget.value, trial, log)
    else:
        found = best_within(options, [int(budget.value) - rest])[0]
        if found is None:
            least = rest + sum(min(o.bytes for o in some) for some in options.values())
            raise CompressionError(
                f"{compression.budget} cannot be met: {min(CHOICES[granularity])} bits for every "
                f"layer take {least} bytes; give at least {math.ceil(least / 1000)}KB"
            )
        chosen, measured = found, {}
    measured = {"bytes": rest + _bytes(chosen)} | measured
    bits = {name: option.scheme.bits for name, option in chosen.items()}
    return Allocation(compression, granularity, bits, measured)


def _bytes(chosen: Mapping[str, Option]) -> int:
    return sum(option.bytes for option in chosen.values())


def _predicted(chosen: Mapping[str, Option]) -> float:
    """PSNR in dB of a picture whose errors are the options' sum."""
    return decibels(sum(option.error for option in chosen.values()))


def _search(
    options: Mapping[str, Sequence[Option]],
    rest: int,
    wanted: float,
    measure: Callable[[Mapping[str, Option]], float],
    log: Log,
) -> tuple[Mapping[str, Option], dict[str, object]]:
    """The smallest choice that measures ``wanted`` dB or more, in at most TRIALS trials.

    Prediction and measurement differ by a number of dB that changes slowly with size, so each
    trial corrects the prediction that the next one asks for.
    """
    frontier = _frontier(options)
    offset = 6.0  # what compensation gives at 4 bits; only the first trial depends on it
    trials: list[tuple[Mapping[str, Option], float]] = []
    for _ in range(TRIALS):
        enough = [c for c in frontier if _predicted(c) + offset >= wanted]
        chosen = enough[0] if enough else frontier[-1]
        if any(_bytes(chosen) == _bytes(before) for before, _ in trials):
            break
        found = measure(chosen)
        trials.append((chosen, found))
        log(f"mixed bits: {rest + _bytes(chosen)} bytes measure {found:.2f} dB")
        offset = found - _predicted(chosen)
        if 0 <= found - wanted <= CLOSE:
            break
    met = [trial for trial in trials if trial[1] >= wanted]
    best = min(met, key=lambda t: _bytes(t[0])) if met else max(trials, key=lambda t: t[1])
    record = [{"bytes": rest + _bytes(c), "psnr_db": round(db, 2)} for c, db in trials]
    measured: dict[str, object] = {"psnr_db": round(best[1], 2), "trials": record}
    if not met:
        measured["missed_by_db"] = round(wanted - best[1], 2)
        log(
            f"mixed bits: {wanted:g} dB is missed by {wanted - best[1]:.2f} dB on the calibration "
            "latents; this is the best that was found"
        )
    return best[0], measured


def _frontier(options: Mapping[str, Sequence[Option]]) -> list[Mapping[str, Option]]:
    """Choices from the fewest bytes to the most, some 200 sizes between them."""
    least = sum(min(o.bytes for o in some) for some in options.values())
    most = sum(max(o.bytes for o in some) for some in options.values())
    steps = np.linspace(least, most, 200)
    # A choice of whole blocks may be up to a block above a budget between them.
    found = best_within(options, [math.ceil(step) for step in steps])
    return [chosen for chosen in found if chosen is not None]


class _Trials:
    """Measures choices of bits on latents that the weights were not fitted to."""

    def __init__(
        self,
        decoder: nn.Module,
        method: str,
        precision: str,
        latents: Sequence[np.ndarray],
        log: Log,
    ) -> None:
        self._decoder, self._method, self._precision, self._log = decoder, method, precision, log
        side = MEASURED * input_scale(decoder)
        self._latents = [middle(latent, side) for latent in latents]
        with torch.no_grad():
            self._pictures = [decoder(torch.from_numpy(z)) for z in self._latents]

    def __call__(self, chosen: Mapping[str, Option]) -> float:
        """PSNR in dB of the mean squared error over all latents.

        That is never above the mean of the latents' PSNRs, and hard pictures weigh most.
        """
        schemes = {name: option.scheme for name, option in chosen.items()}
        indices = range(len(self._latents))
        folds = [[i for i in indices if i % 2 == side] for side in (0, 1)]
        if self._method == "plain" or not folds[1]:
            folds = [[], list(indices)]  # nothing is fitted, or there is only one to fit on
        errors: list[float] = []
        for fitted, held in (folds, folds[::-1]):
            if not held:
                continue
            latents = [self._latents[i] for i in fitted or held]
            made = by_schemes(
                self._decoder, schemes, self._method, self._precision, latents, self._log
            )
            errors += [self._error(made.decoder, i) for i in held]
        return decibels(sum(errors) / len(errors))

    @torch.no_grad()
    def _error(self, decoder: nn.Module, index: int) -> float:
        picture = decoder(torch.from_numpy(self._latents[index]))
        return float((picture - self._pictures[index]).double().square().mean())
