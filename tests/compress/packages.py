"""A small decoder of the catalogue's kinds of layers, forms made by simple rounding, packages."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fluxvae.compress.forms import (
    Activation,
    CompressedDecoder,
    CompressedWeight,
    Palettized,
    Quantized,
    dense,
    to_float16,
)
from fluxvae.compress.write import write_compressed
from fluxvae.networks.structure import conv_sites
from fluxvae.networks.tiny import Block, LatentClamp
from fluxvae.recipes import Recipe, parse_sizes
from fluxvae.recipes.compression import Compression
from tests.conversion_cache import write_model

LATENT, WIDTH = 4, 16
# convolutions of small_decoder in execution order, by module name
SITES = (
    "1", "3.pool.0", "3.pool.3", "3.conv.0", "3.conv.2", "3.conv.4",
    "5", "7", "9", "10.conv.0", "10.conv.2", "10.conv.4", "11",
)  # fmt: skip


def small_decoder(seed: int = 0) -> nn.Sequential:
    """Latent (B, 4, h, w) to image (B, 3, 8h, 8w): 13 convolutions, a pool branch, 16 wide."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = [LatentClamp(), nn.Conv2d(LATENT, WIDTH, 3, padding=1), nn.ReLU()]
    layers.append(Block(WIDTH, pool=True))
    for _ in range(3):
        layers += [nn.Upsample(scale_factor=2), nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)]
    layers += [Block(WIDTH), nn.Conv2d(WIDTH, 3, 3, padding=1)]
    return nn.Sequential(*layers).eval().requires_grad_(False)


def palette(weight: np.ndarray, bits: int, *, groups: int = 1, scaled: bool = False) -> Palettized:
    """Tables of quantiles, each weight to the nearest; scales are the channels' largest values."""
    scale = to_float16(np.abs(weight).max((1, 2, 3))) if scaled else None
    values = weight if scale is None else weight / scale[:, None, None, None]
    rows = values.reshape(groups, -1)
    lut = to_float16(np.quantile(rows, (np.arange(2**bits) + 0.5) / 2**bits, axis=1).T)
    indices = np.abs(rows[:, :, None] - lut[:, None, :]).argmin(2).astype(np.uint8)
    return Palettized(bits, indices.reshape(weight.shape), lut, scale)


def integers(weight: np.ndarray, dtype: str, granularity: str) -> Quantized:
    """Symmetric rounding by the largest value of a ``tensor``, a ``channel`` or a ``block:N``."""
    top = {"int8": 127, "int4": 7}[dtype]
    magnitude = np.abs(weight)
    if granularity == "tensor":
        largest = magnitude.max(keepdims=True)
    elif granularity == "channel":
        largest = magnitude.max((1, 2, 3), keepdims=True)
    else:
        out, into, *_ = weight.shape
        size = int(granularity.removeprefix("block:"))
        largest = magnitude.reshape(out, into // size, -1).max(2)[:, :, None, None]
    scale = to_float16(largest / top)
    wide = np.repeat(scale, weight.shape[1] // scale.shape[1], 1)
    return Quantized(dtype, np.clip(np.rint(weight / wide), -top, top).astype(np.int8), scale)


def form(weight: np.ndarray, text: str) -> CompressedWeight:
    """``pal4``, ``pal4-grouped:4``, ``pal4-scaled``, ``int8-tensor``, ``int4-block:4``, ..."""
    kind, _, granularity = text.partition("-")
    if kind.startswith("pal"):
        groups = int(granularity.removeprefix("grouped:")) if "grouped" in granularity else 1
        return palette(weight, int(kind[3:]), groups=groups, scaled=granularity == "scaled")
    return integers(weight, kind, granularity)


def weight_of(decoder: nn.Sequential, site: str) -> np.ndarray:
    return decoder.get_submodule(site).weight.detach().numpy()  # type: ignore[union-attr, return-value, operator]


def compressed_as(
    decoder: nn.Sequential,
    forms: Mapping[str, str],
    activations: Mapping[str, Activation] | None = None,
) -> CompressedDecoder:
    """``forms`` by site, as ``form`` takes them."""
    weights = {site: form(weight_of(decoder, site), text) for site, text in forms.items()}
    return CompressedDecoder(decoder, weights, activations or {})


def cycled(*texts: str) -> dict[str, str]:
    """Each site a form of ``texts`` in turn, except the last convolution, which keeps its own."""
    return {
        site: texts[i % len(texts)] for i, site in enumerate(SITES[:-1]) if texts[i % len(texts)]
    }


class Rounded(nn.Module):
    """A convolution whose input is rounded to 8 bits first."""

    def __init__(self, conv: nn.Conv2d, how: Activation) -> None:
        super().__init__()
        self.conv, self.how = conv, how

    def forward(self, x: Tensor) -> Tensor:
        low, high = {"int8": (-128, 127), "uint8": (0, 255)}[self.how.dtype]
        levels = torch.clamp(torch.round(x / self.how.scale) + self.how.zero_point, low, high)
        return self.conv((levels - self.how.zero_point) * self.how.scale)


def twin(compressed: CompressedDecoder, precision: str = "float32") -> nn.Sequential:
    """The decoder in torch with the dense weights and rounded inputs, float32."""
    copy = small_decoder()
    copy.load_state_dict(compressed.decoder.state_dict())
    for site in conv_sites(copy):
        conv = copy.get_submodule(site.name)
        assert isinstance(conv, nn.Conv2d)
        if site.name in compressed.weights:
            conv.weight = nn.Parameter(
                torch.from_numpy(dense(compressed.weights[site.name], precision)), False
            )
        if site.name in compressed.activations:
            parent, _, name = site.name.rpartition(".")
            wrapped = Rounded(conv, compressed.activations[site.name])
            setattr(copy.get_submodule(parent), name, wrapped)
    return copy


def image_of(compressed: CompressedDecoder, latent: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return twin(compressed)(torch.from_numpy(latent)).numpy()


def latent(side: int = 8, seed: int = 0) -> np.ndarray:
    shape = (1, LATENT, side, side)
    return np.random.Generator(np.random.PCG64(seed)).standard_normal(shape, np.float32)


@dataclass
class Bases:
    """Converted packages of ``small_decoder(0)``, each made once; ``written`` works on a copy."""

    folder: Path
    _made: dict[object, Path] = field(default_factory=dict)

    def base(self, target: str, precision: str, sizes: str = "64", **fields: object) -> Path:
        key = (target, precision, sizes, *sorted(fields.items()))
        if key not in self._made:
            recipe = Recipe(
                "flux2",
                precision=precision,
                sizes=parse_sizes(sizes),
                target=target,
                compression=Compression("int8"),
                **fields,  # type: ignore[arg-type]
            )
            path = self.folder / f"{len(self._made)}.mlpackage"
            write_model(small_decoder(), recipe, LATENT, path)
            self._made[key] = path
        return self._made[key]

    def written(
        self,
        compressed: CompressedDecoder,
        folder: Path,
        target: str,
        precision: str,
        **how: object,
    ) -> Path:
        base = self.base(target, precision, **how)  # type: ignore[arg-type]
        path = Path(shutil.copytree(base, folder / "small.mlpackage"))
        write_compressed(path, compressed, precision)
        return path
