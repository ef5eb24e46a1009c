"""The fields of a recipe and what follows from one of them alone. Standard library only."""

from dataclasses import dataclass

from fluxvae.networks.catalog import DECODERS, PARTS
from fluxvae.recipes.compression import Compression
from fluxvae.recipes.sizes import HALO, Size

PRECISIONS = ("float16", "float32")
LAYOUTS = ("nchw", "nhwc")
SHAPES = ("fixed", "enumerated", "multifunction")
OUTPUTS = ("tensor", "image")
INPUTS = OUTPUTS
FORMATS = ("mlprogram", "neuralnetwork")
TARGETS = ("iOS15", "iOS16", "iOS17", "iOS18", "iOS26")
# The same releases under the names Mac users know.
MAC_TARGETS = {
    "macOS12": "iOS15",
    "macOS13": "iOS16",
    "macOS14": "iOS17",
    "macOS15": "iOS18",
    "macOS26": "iOS26",
}
LATENTS = ("vae", "sampler", "packed")
FP16_SAFETY = ("report", "rescale", "mixed", "off")
TILE_STATISTICS = ("strided", "whole")


def native_form(kind: str) -> str:
    """The form that a decoder takes, and its encoder gives, without anything between."""
    return "sampler" if kind == "tiny" else "vae"


@dataclass(frozen=True)
class RecipeFields:
    """What a ``Recipe`` says, not checked: the fields are described there."""

    variant: str
    precision: str = "float16"
    io_precision: str = "auto"
    layout: str = "nchw"
    nhwc_model: bool = False
    sizes: tuple[Size, ...] = (Size(1024, 1024),)
    shapes: str = "fixed"
    output: str = "tensor"
    format: str = "mlprogram"
    target: str | None = None
    compression: Compression | None = None
    decoder: str = "tiny"
    attention: str = "auto"
    latents: str | None = None
    fp16_safety: str = "report"
    chunks: int = 1
    tile: int | None = None
    tile_statistics: str = "strided"
    part: str = "decoder"
    input: str = "tensor"

    @property
    def encodes(self) -> bool:
        """Whether images go in and latents come out."""
        return self.part == "encoder"

    @property
    def latent_form(self) -> str:
        """``vae``, ``sampler`` or ``packed``: which latent the artifact takes or gives."""
        return self.latents or native_form(self.decoder)

    @property
    def io_dtype(self) -> str:
        """``float16`` or ``float32``: dtype of the tensors an app gives and gets."""
        return self.precision if self.io_precision == "auto" else self.io_precision

    @property
    def halo(self) -> int:
        """Latent pixels around a tile's own that reach into it."""
        return HALO[self.decoder]


ALLOWED: dict[str, tuple[object, ...]] = {
    "precision": PRECISIONS,
    "io_precision": ("auto", *PRECISIONS),
    "layout": LAYOUTS,
    "shapes": SHAPES,
    "output": OUTPUTS,
    "format": FORMATS,
    "target": (None, *TARGETS),
    "decoder": DECODERS,
    "latents": (None, *LATENTS),
    "fp16_safety": FP16_SAFETY,
    "chunks": (1, 2),
    "tile_statistics": TILE_STATISTICS,
    "part": PARTS,
    "input": INPUTS,
}
