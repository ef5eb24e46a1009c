"""One frozen Recipe for each artifact.

Standard library only. A recipe says everything about an artifact except its weights; its name is
the artifact's file name.
"""

from dataclasses import asdict, dataclass, fields, replace

from fluxvae.errors import UsageError
from fluxvae.networks.catalog import DECODERS, find_decoder
from fluxvae.recipes.attention import choose_attention, parse_attention
from fluxvae.recipes.compression import Compression
from fluxvae.recipes.latents import artifact_contract, check_latents, native_form
from fluxvae.recipes.parts import HALO, TILE_STATISTICS, best_tile, check_parts
from fluxvae.recipes.rules import check_format, check_full, check_safety, check_shapes
from fluxvae.recipes.sizes import SCALE, Size, parse_sizes

PRECISIONS = ("float16", "float32")
LAYOUTS = ("nchw", "nhwc")
SHAPES = ("fixed", "enumerated", "multifunction")
OUTPUTS = ("tensor", "image")
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


@dataclass(frozen=True)
class Recipe:
    """One artifact to make. ``None`` for ``io_precision``, ``shapes`` or ``target``: by need.

    ``nhwc_model`` makes the graph NHWC inside and out; ``layout="nhwc"`` alone puts NHWC input
    and output around the NCHW graph. ``compression`` None: weights as they are.

    The last seven are for the full decoders, but ``tile``, ``chunks`` and ``latents`` (None: the
    decoder's own, ``sampler`` for the tiny ones and ``vae`` for the KL ones). ``attention`` is a
    form with an optional number of queries computed at a time, ``chunked:1024``; ``chunks`` the
    number of programs. ``tile``: side in pixels of the tiles that the picture is made of (see
    ``fluxvae.artifact.tiles``), None for one pass; ``tile_statistics`` says where a KL decoder's
    tiles have their GroupNorm statistics from.

    Raises UsageError for combinations that cannot be made.
    """

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

    def __post_init__(self) -> None:
        find_decoder(self.variant, self.decoder)
        for field, allowed in (
            ("precision", PRECISIONS),
            ("io_precision", ("auto", *PRECISIONS)),
            ("layout", LAYOUTS),
            ("shapes", SHAPES),
            ("output", OUTPUTS),
            ("format", FORMATS),
            ("target", (None, *TARGETS)),
            ("decoder", DECODERS),
            ("latents", (None, *LATENTS)),
            ("fp16_safety", FP16_SAFETY),
            ("chunks", (1, 2)),
            ("tile_statistics", TILE_STATISTICS),
        ):
            value = getattr(self, field)
            if value not in allowed:
                raise UsageError(f"{field} {value!r} is none of {[a for a in allowed if a]}")
        if self.latents == native_form(self.decoder):
            object.__setattr__(self, "latents", None)  # one recipe, one name
        check_shapes(self)
        check_format(self)
        check_safety(self)
        check_latents(self)
        if self.chunks != 1 or self.tile is not None:
            check_parts(self)
        parse_attention(self.attention)
        if self.decoder != "tiny":
            check_full(self)
        elif self.attention != "auto":
            raise UsageError(
                "the tiny decoders have no attention: --attention needs --decoder full or small"
            )
        if self.target and TARGETS.index(self.target) < TARGETS.index(self._least_target()):
            raise UsageError(
                f"target {self.target} is too old: {self._target_reason()} "
                f"needs {self._least_target()} or newer{self._target_way_out()}"
            )

    @property
    def halo(self) -> int:
        """Latent pixels around a tile's own that reach into it."""
        return HALO[self.decoder]

    @property
    def tile_input(self) -> int:
        """Side in latent pixels of what a tile is made from: the tile and a halo on one side.

        So two tiles of 512 px make an image of 1024, as edges of the image need no halo; a tile
        inside the image has its halo on both sides and shows less.
        """
        if self.tile is None:
            raise UsageError("this recipe has no tiles")
        return self.tile // SCALE + self.halo

    def tile_shape(self, size: Size) -> tuple[int, int]:
        """Rows and columns in latent pixels of the tiles that suit images of ``size`` best."""
        return best_tile(size.height // SCALE, size.width // SCALE, self.tile_input, self.halo)

    def auto_attention(self) -> tuple[str, str]:
        """What ``--attention auto`` gives for the largest size, and why."""
        places = max(s.height * s.width for s in self.sizes) // SCALE**2
        newest = TARGETS.index(self.deployment_target or "iOS15") >= TARGETS.index("iOS18")
        return choose_attention(places, self.precision, newest)

    def resolved(self) -> "Recipe":
        """The recipe with its ``auto`` attention replaced by a form; what artifacts record."""
        if self.decoder == "tiny" or self.attention != "auto":
            return self
        return replace(self, attention=self.auto_attention()[0])

    @property
    def latent_form(self) -> str:
        """``vae``, ``sampler`` or ``packed``: which latent the artifact takes."""
        return self.latents or native_form(self.decoder)

    @property
    def io_dtype(self) -> str:
        """``float16`` or ``float32``: dtype of the tensors an app hands over and receives."""
        return self.precision if self.io_precision == "auto" else self.io_precision

    @property
    def deployment_target(self) -> str | None:
        """The chosen target, or the oldest that holds this recipe at its best; None for networks.

        "At its best": palettes get scales for their channels unless an older target is chosen.
        """
        if self.format == "neuralnetwork":
            return None
        wanted = "iOS15" if self.compression is None else self.compression.wanted_target()
        return self.target or max(self._least_target(), wanted, key=TARGETS.index)

    def _needs(self) -> tuple[tuple[str, str, str], ...]:
        """What asks for which release: (release, what, another way)."""
        needs = [("iOS15", "an ML Program", "")]
        if self.io_dtype == "float16":
            needs.append(("iOS16", "float16 input", "; or use --io-precision float32"))
        if self.tile is not None:
            needs.append(("iOS18", "--tile (a package of several functions)", ""))
        if self.shapes == "multifunction":
            needs.append(("iOS18", "--shapes multifunction", "; or use --shapes enumerated"))
        if parse_attention(self.attention)[0] == "sdpa":
            needs.append(("iOS18", "--attention sdpa", "; or use --attention auto"))
        if self.compression is not None:
            least = self.compression.least_target()
            finer = " or --granularity tensor" if self.compression.kind == "palette" else ""
            other = f"; or use --palettize 2, 4, 6 or 8{finer}" if least == "iOS18" else ""
            needs.append((least, f"compression {self.compression.label()}", other))
        return tuple(sorted(needs, key=lambda need: TARGETS.index(need[0])))

    def _least_target(self) -> str:
        return self._needs()[-1][0]

    def _target_reason(self) -> str:
        return self._needs()[-1][1]

    def _target_way_out(self) -> str:
        return self._needs()[-1][2]

    @property
    def granularity(self) -> str | None:
        """The compression's granularity on this recipe's target; None without compression."""
        if self.compression is None or self.deployment_target is None:
            return None
        return self.compression.resolved_granularity(self.deployment_target)

    @property
    def suffix(self) -> str:
        """``.mlpackage``, or ``.mlmodel`` for a neural network."""
        return ".mlmodel" if self.format == "neuralnetwork" else ".mlpackage"

    def name(self) -> str:
        """File name without suffix: ``flux2_tiny_decoder_nchw_float16_hw1024``."""
        parts = [find_decoder(self.variant, self.decoder).artifact_stem()]
        parts.append("nhwcmodel" if self.nhwc_model else self.layout)
        parts.append(self.precision)
        if self.io_dtype != self.precision:
            parts.append(f"io{self.io_dtype}")
        if self.tile is not None and self.decoder == "tiny":
            pass  # takes every size
        elif all(s.height == s.width for s in self.sizes):
            parts.append("hw" + "-".join(str(s.height) for s in self.sizes))
        else:
            parts.append("hw" + "-".join(f"{s.height}x{s.width}" for s in self.sizes))
        parts += [p for p in (self.shapes, self.output) if p not in ("fixed", "tensor")]
        if self.compression:
            parts.append(self.compression.label())
        parts += self._full_labels()
        if self.target:
            parts.append(self.target)
        return "_".join(parts)

    def _full_labels(self) -> list[str]:
        """Parts of the name for what artifacts had no choice of at first, where it was chosen."""
        labels = []
        if self.attention not in ("auto", self.auto_attention()[0]):
            labels.append("attn-" + self.attention.replace(":", ""))
        if self.latents is not None:
            labels.append(f"{self.latents}-latents")
        if self.fp16_safety != "report":
            labels.append(f"fp16-{self.fp16_safety}")
        if self.chunks != 1:
            labels.append(f"{self.chunks}chunks")
        if self.tile is not None:
            labels.append(f"tile{self.tile}")
            if self.tile_statistics != "strided":
                labels.append(f"{self.tile_statistics}-statistics")
        return labels

    def to_dict(self) -> dict[str, object]:
        """Plain data for JSON; sizes as strings; fields younger than the first artifacts only
        where they are not at their default.
        """
        data = {**asdict(self), "sizes": [str(s) for s in self.sizes]}
        for field in fields(self):
            if field.name in _YOUNGER and getattr(self, field.name) == field.default:
                del data[field.name]
        return data

    @classmethod
    def from_dict(cls, data: dict[str, object]) -> "Recipe":
        """The inverse of ``to_dict``. Raises UsageError for unknown keys or values."""
        given = dict(data)
        sizes = given.pop("sizes", [])
        if not isinstance(sizes, list):
            raise UsageError(f"a recipe's sizes must be a list, got {sizes!r}")
        compression = given.pop("compression", None)
        try:
            if isinstance(compression, dict):
                given["compression"] = Compression(**compression)
            return cls(**given, sizes=parse_sizes(",".join(map(str, sizes))))  # type: ignore[arg-type]
        except TypeError as error:
            raise UsageError(f"not a recipe: {error}") from error


_YOUNGER = (
    *("compression", "decoder", "attention", "latents", "fp16_safety"),
    *("chunks", "tile", "tile_statistics"),
)


def latent_shape(recipe: Recipe, size: Size, channels: int) -> tuple[int, ...]:
    """Shape of the model's input for one size, in the recipe's layout.

    ``channels`` are those of the decoder's own latent, whatever the recipe's ``latents``.
    """
    own = replace(find_decoder(recipe.variant, recipe.decoder).contract, channels=channels)
    return artifact_contract(recipe, own).shape(size.height, size.width, recipe.layout)


def artifact_name(recipe: Recipe, weights: str) -> str:
    """File name with suffix. ``weights`` is a source's kind: demo and random weights say so."""
    label = f"_{weights}" if weights in ("demo", "random") else ""
    return f"{recipe.name()}{label}{recipe.suffix}"
