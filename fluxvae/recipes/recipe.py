"""One frozen Recipe for each artifact.

Standard library only. A recipe says everything about an artifact except its weights; its name is
the artifact's file name.
"""

from dataclasses import asdict, dataclass, fields, replace

from fluxvae.errors import UsageError
from fluxvae.networks.catalog import find_decoder
from fluxvae.recipes.compression import Compression
from fluxvae.recipes.fields import TARGETS, RecipeFields, native_form
from fluxvae.recipes.latents import artifact_contract
from fluxvae.recipes.rules import check_fields, check_rules, needed_targets
from fluxvae.recipes.sizes import SCALE, Size, best_tile, choose_attention, parse_sizes


@dataclass(frozen=True)
class Recipe(RecipeFields):
    """One artifact to make. ``None`` for ``io_precision``, ``shapes`` or ``target``: by need.

    ``nhwc_model`` makes the graph NHWC inside and out; ``layout="nhwc"`` alone puts NHWC input
    and output around the NCHW graph. ``compression`` None: weights as they are.

    ``decoder`` names the network, ``part`` which half of it: the ``encoder`` takes an image and
    gives a latent, ``input`` says as what the image comes (a tensor in [0, 1], or 8-bit RGB).
    ``latents`` None: the network's own, ``sampler`` for the tiny ones and ``vae`` for the KL ones.
    ``attention`` is a
    form with an optional number of queries computed at a time, ``chunked:1024``; ``chunks`` the
    number of programs. ``tile``: side in pixels of the tiles that the picture is made of (see
    ``fluxvae.artifact.tiles``), None for one pass; ``tile_statistics`` says where a KL decoder's
    tiles have their GroupNorm statistics from.

    Raises UsageError for combinations that cannot be made.
    """

    def __post_init__(self) -> None:
        check_fields(self)
        if self.latents == native_form(self.decoder):
            object.__setattr__(self, "latents", None)  # one recipe, one name
        check_rules(self)

    def plain(self, size: Size) -> "Recipe":
        """The recipe for one size, without compression."""
        return replace(self, compression=None, sizes=(size,), shapes="fixed")

    def exact(self, size: Size) -> "Recipe":
        """``plain`` at float32: what precision and compression are compared with."""
        plain = self.plain(size)
        return replace(plain, precision="float32", io_precision="auto", fp16_safety="report")

    def stages(self) -> "dict[str, Recipe | None]":
        """What each stage of an error budget adds, in order, with the recipe of its program.

        None for the artifact itself, which is the last; the others are at its smallest size. Stages
        that add nothing are left out: a float32 artifact has no precision to lose.
        """
        size = min(self.sizes)
        programs = {"conversion": replace(self.exact(size), output="tensor")}
        if self.precision != "float32":
            programs["precision"] = replace(self.plain(size), output="tensor")
        last = "compression" if self.compression else ""
        if self.output == "image":
            last = f"{last} and 8 bits" if last else "8-bit output"
        return {**programs, last or list(programs)[-1]: None}

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
        positions = max(s.height * s.width for s in self.sizes) // SCALE**2
        newest = TARGETS.index(self.deployment_target or "iOS15") >= TARGETS.index("iOS18")
        return choose_attention(positions, self.precision, newest)

    def resolved(self) -> "Recipe":
        """The recipe with its ``auto`` attention replaced by a form; what artifacts record."""
        if self.decoder == "tiny" or self.attention != "auto":
            return self
        return replace(self, attention=self.auto_attention()[0])

    @property
    def deployment_target(self) -> str | None:
        """The chosen target, or the oldest that holds this recipe at its best; None for networks.

        "At its best": palettes get scales for their channels unless an older target is chosen.
        """
        if self.format == "neuralnetwork":
            return None
        wanted = "iOS15" if self.compression is None else self.compression.wanted_target()
        return self.target or max(needed_targets(self)[-1][0], wanted, key=TARGETS.index)

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
        parts = [find_decoder(self.variant, self.decoder).artifact_stem(self.part)]
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
        forms = (self.shapes, self.input, self.output)
        parts += [form for form in forms if form not in ("fixed", "tensor")]
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
    *("chunks", "tile", "tile_statistics", "part", "input"),
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
