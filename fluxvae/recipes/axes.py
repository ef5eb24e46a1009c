"""Which axis of a latent's array is which, decided by what the artifact takes. Standard library.

The artifact's own layout decides. Another order is taken only where it alone can fit: what fits
twice, or has another model's number of channels, is refused. Every other program writes channels
first, so an array that is a whole latent of another model channels first is that, whatever else
its sides would allow.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from fluxvae.errors import LatentError
from fluxvae.networks.catalog import LatentContract
from fluxvae.recipes.latents import PATCH
from fluxvae.recipes.recipe import Recipe
from fluxvae.recipes.sizes import Size

FIRST, LAST, TOKENS, FRAMES = "channels first", "channels last", "tokens", "frames"
# Channels of the latents that people have, and whose they are.
MODELS = {4: "Stable Diffusion", 16: "FLUX.1", 32: "FLUX.2", 64: "FLUX.1, packed",
          128: "FLUX.2, packed"}  # fmt: skip
MAPS = (4, 16, 32, 128)  # of these, those that come as maps; FLUX.1's packed ones come as tokens
LONGEST = 3  # sides of an image: a latent of another model with longer ones is not supposed


@dataclass(frozen=True)
class Reading:
    """One meaning of an array's axes, those of length 1 left out; ``batch`` latents."""

    order: str
    channels: int
    rows: int
    columns: int
    batch: int = 1


@dataclass(frozen=True)
class LatentInput:
    """What an artifact takes: the contract, its layout, and the sizes of its maps.

    ``form`` as of ``fluxvae.recipes.latents``. ``sides``: rows and columns of each map that is
    taken; without any, or with ``any_size``, maps of every size are.
    """

    contract: LatentContract
    variant: str
    form: str
    layout: str = "nchw"
    sides: tuple[tuple[int, int], ...] = ()
    any_size: bool = False

    @property
    def packed(self) -> bool:
        """Whether a latent is 2 x 2 patches, which pipelines also give as tokens."""
        return self.form == "packed"

    @property
    def order(self) -> str:
        """The artifact's own order of axes."""
        if self.contract.tokens:
            return TOKENS
        return LAST if self.layout == "nhwc" else FIRST

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes in the artifact's own layout, one for each of ``sides``."""
        scale = self.contract.scale
        return tuple(
            self.contract.shape(rows * scale, columns * scale, self.layout)
            for rows, columns in dict.fromkeys(self.sides)
        )

    def takes(self, reading: Reading) -> bool:
        """Whether a latent of this reading can be decoded."""
        if reading.channels != self.contract.channels:
            return False
        every = self.any_size or not self.sides
        return every or (reading.rows, reading.columns) in self.sides

    def expected(self) -> str:
        """What is expected, in words: the shape with the sides, and the images' sizes."""
        contract = self.contract
        height, width = f"H/{contract.scale}", f"W/{contract.scale}"
        text = {
            TOKENS: f"(1, {height} * {width}, {contract.channels})",
            LAST: f"(1, {height}, {width}, {contract.channels})",
            FIRST: f"(1, {contract.channels}, {height}, {width})",
        }[self.order]
        if self.any_size or not self.sides:
            return text
        return (
            f"{text} for images of {', '.join(self.image(*s) for s in dict.fromkeys(self.sides))}"
        )

    def image(self, rows: int, columns: int) -> str:
        """Size of the image of a map, as ``--size`` takes it: ``1024`` or ``768x1344``."""
        height, width = rows * self.contract.scale, columns * self.contract.scale
        return str(height) if height == width else f"{height}x{width}"


def latent_input(
    recipe: Recipe, contract: LatentContract, sizes: tuple[Size, ...], *, any_size: bool = False
) -> LatentInput:
    """What an artifact of ``recipe`` takes for these of its sizes. ``contract``: the artifact's."""
    sides = tuple((s.height // contract.scale, s.width // contract.scale) for s in sizes)
    return LatentInput(contract, recipe.variant, recipe.latent_form, recipe.layout, sides, any_size)


def choose_reading(shape: tuple[int, ...], wanted: LatentInput) -> Reading:
    """The one meaning of ``shape`` that the artifact takes.

    Raises LatentError with the rest of a sentence about the array ("has the shape ..."): it is of
    another model, of another size, can mean two things, or is not a latent at all.
    """
    found = tuple(_readings(shape, wanted))
    fitting = [r for r in found if wanted.takes(r)]
    own = [r for r in fitting if r.order == wanted.order]
    frames = [r for r in fitting if r.order == FRAMES]
    others = [r for r in found if _of_another_model(r, wanted)]
    if len(own) == 1 and not frames:
        return own[0]
    if len(fitting) == 1 and not frames and not others:
        return fitting[0]
    head = f"has the shape {list(shape)}"
    if not fitting:
        raise LatentError(_why_not(shape, found, others, wanted))
    if fitting == frames:
        raise LatentError(f"{head}, {shape[2]} frames: cut out one of them")
    if all(r.order == TOKENS for r in fitting):
        sizes = " or ".join(wanted.image(r.rows, r.columns) for r in fitting)
        raise LatentError(f"has {shape[-2]} tokens, which could be {sizes}: give --size")
    meanings = dict.fromkeys(_meaning(r, wanted) for r in (*others, *fitting))
    raise LatentError(
        f"{head}, which can be read in two ways: {' or '.join(meanings)}; save it as this model "
        f"takes it, {wanted.expected()}"
    )


def _readings(shape: tuple[int, ...], wanted: LatentInput) -> Iterator[Reading]:
    """Every meaning of a shape. No side of a latent is 1: the smallest image has 64 pixels."""
    axes = tuple(n for n in shape if n != 1)
    if len(axes) == 3:
        yield Reading(FIRST, axes[0], axes[1], axes[2])
        yield Reading(LAST, axes[2], axes[0], axes[1])
    if len(axes) == 4:
        yield Reading(FIRST, axes[1], axes[2], axes[3], axes[0])
        yield Reading(LAST, axes[3], axes[1], axes[2], axes[0])
        if shape[0] == 1 and len(shape) == 5:  # (1, C, F, h, w), as of video models
            yield Reading(FRAMES, axes[0], axes[2], axes[3])
    if wanted.packed and len(axes) in (2, 3):
        batch = axes[0] if len(axes) == 3 else 1
        for rows, columns in dict.fromkeys(wanted.sides):
            if rows * columns == axes[-2]:
                yield Reading(TOKENS, axes[-1], rows, columns, batch)


def _of_another_model(reading: Reading, wanted: LatentInput) -> bool:
    sides = sorted((reading.rows, reading.columns))
    return (
        reading.order == FIRST
        and reading.channels in MAPS
        and reading.channels != wanted.contract.channels
        and sides[1] <= LONGEST * sides[0]
    )


def _meaning(reading: Reading, wanted: LatentInput) -> str:
    """What a reading says of the array, as one of several."""
    if reading.channels != wanted.contract.channels:
        return f"{reading.order} ({_owner(reading.channels)})"
    if reading.order == FRAMES:
        return "frames of one latent"
    batch = f"{reading.batch} latents of " if reading.batch > 1 else ""
    return f"{reading.order} ({batch}an image of {wanted.image(reading.rows, reading.columns)})"


def _owner(channels: int) -> str:
    return f"{channels} channels belong to another model, {MODELS[channels]}"


def _why_not(
    shape: tuple[int, ...], found: tuple[Reading, ...], others: list[Reading], wanted: LatentInput
) -> str:
    """Why no reading fits; a foreign number of channels comes before a wrong size."""
    contract, axes = wanted.contract, tuple(n for n in shape if n != 1)
    tokens = wanted.packed and axes and axes[-1] == contract.channels
    if tokens and (len(axes) == 2 or (len(axes) == 3 and wanted.order == TOKENS)):
        counts = ", ".join(str(h * w) for h, w in dict.fromkeys(wanted.sides))
        return f"has {axes[-2]} tokens; expected {counts or 'a size to be known'}"
    head = f"has the shape {list(shape)}; expected {wanted.expected()}."
    packing = _packing(axes, found, wanted)
    if packing:
        return head + packing
    right = [r for r in found if r.channels == contract.channels and r.order != FRAMES]
    own = [r for r in right if r.order == wanted.order]
    foreign = [] if own and wanted.order == FIRST else others
    if wanted.order == LAST and not own and not foreign:
        foreign = [r for r in found if r.order == LAST and r.channels in MAPS and r not in right]
    text = "".join(f" {_owner(r.channels)}." for r in foreign[:1])
    if not text or wanted.order == LAST:
        for reading in (own or right)[:1]:
            order = "" if reading.order == wanted.order else f", {reading.order}"
            text += f" It is for images of {wanted.image(reading.rows, reading.columns)}{order}."
    if not text and wanted.packed and axes:
        text = f" This decoder's model gives {contract.channels} numbers a token, not {axes[-1]}."
    return head + text


def _packing(axes: tuple[int, ...], found: tuple[Reading, ...], wanted: LatentInput) -> str:
    """What to do with a latent of the same model that is packed and should not be, or not so."""
    channels, patch = wanted.contract.channels, PATCH**2
    maps = {r.channels for r in found if r.order == FIRST}
    if wanted.packed and channels // patch in maps:
        return " These look unpacked: convert with --latents sampler or vae, or pack them first."
    advice = " These look packed (2 x 2 patches in {} channels): convert with --latents packed, or "
    if not wanted.packed and channels * patch in maps:
        advice += "unpatchify them first, torch.nn.functional.pixel_shuffle(latent, 2)."
        return advice.format(channels * patch)
    if not wanted.packed and len(axes) in (2, 3) and axes[-1] == channels * patch:
        return (advice + "unpatchify them first.").format(channels * patch)
    return ""
