"""Combinations that a recipe cannot have: one table of (condition, sentence), by topic.

The sentences name the options of the command line. Conditions are evaluated in this order, and the
first that holds is raised: a later one may rely on those before it.
"""

from collections.abc import Callable, Iterable, Iterator

from fluxvae.errors import UsageError
from fluxvae.networks.catalog import find_decoder
from fluxvae.recipes.fields import ALLOWED, TARGETS, RecipeFields, native_form
from fluxvae.recipes.latents import PACKED, PATCH
from fluxvae.recipes.sizes import HALO, LARGEST_SIDE, SCALE, parse_attention

Rule = tuple[bool, str]


def check_fields(recipe: RecipeFields) -> None:
    """Raise UsageError for a field whose value does not exist."""
    find_decoder(recipe.variant, recipe.decoder)
    for name, allowed in ALLOWED.items():
        value = getattr(recipe, name)
        if value not in allowed:
            raise UsageError(f"{name} {value!r} is none of {[a for a in allowed if a]}")


def check_rules(recipe: RecipeFields) -> None:
    """Raise UsageError for the first violated rule. The fields' values are checked already."""
    for topic in _TOPICS:
        _raise_first(topic(recipe))
    needs = needed_targets(recipe)
    release, what, way_out = needs[-1]
    if recipe.target and TARGETS.index(recipe.target) < TARGETS.index(release):
        raise UsageError(
            f"target {recipe.target} is too old: {what} needs {release} or newer{way_out}"
        )


def check_tile(tile: int, decoder: str) -> None:
    """Raise UsageError for tiles that cannot be: no multiple of 8, or nothing but halo."""
    _raise_first(_tile(tile, decoder))


def needed_targets(recipe: RecipeFields) -> tuple[tuple[str, str, str], ...]:
    """What asks for which release, the newest last: (release, what, another way)."""
    needs = [("iOS15", "an ML Program", "")]
    if recipe.io_dtype == "float16":
        needs.append(("iOS16", "float16 input", "; or use --io-precision float32"))
    if recipe.tile is not None:
        needs.append(("iOS18", "--tile (a package of several functions)", ""))
    if recipe.shapes == "multifunction":
        needs.append(("iOS18", "--shapes multifunction", "; or use --shapes enumerated"))
    if parse_attention(recipe.attention)[0] == "sdpa":
        needs.append(("iOS18", "--attention sdpa", "; or use --attention auto"))
    if recipe.compression is not None:
        least = recipe.compression.least_target()
        finer = " or --granularity tensor" if recipe.compression.kind == "palette" else ""
        other = f"; or use --palettize 2, 4, 6 or 8{finer}" if least == "iOS18" else ""
        needs.append((least, f"compression {recipe.compression.label()}", other))
    return tuple(sorted(needs, key=lambda need: TARGETS.index(need[0])))


def _raise_first(rules: Iterable[Rule]) -> None:
    for wrong, sentence in rules:
        if wrong:
            raise UsageError(sentence)


def _headed(head: str, *rules: Rule) -> Iterator[Rule]:
    return ((wrong, f"{head} {why}") for wrong, why in rules)


def _shapes(recipe: RecipeFields) -> Iterator[Rule]:
    """Sizes and layouts that do not go together."""
    yield (
        recipe.shapes == "fixed" and len(recipe.sizes) != 1,
        "several sizes need --shapes multifunction (one function per size, one weight file) or "
        "--shapes enumerated",
    )
    yield (
        recipe.shapes != "fixed" and len(recipe.sizes) < 2,
        f"--shapes {recipe.shapes} needs two sizes or more, such as 768,1024",
    )
    yield (
        recipe.nhwc_model and recipe.layout != "nhwc",
        "--nhwc-model takes and gives NHWC: use it with --layout nhwc",
    )


def _format(recipe: RecipeFields) -> Iterator[Rule]:
    """What a neural network cannot be."""
    if recipe.format != "neuralnetwork":
        return
    yield from _headed(
        "the neuralnetwork format",
        (recipe.precision != "float32", "has no compute precision: use --precision float32"),
        (recipe.io_precision == "float16", "has float32 input and output only"),
        (recipe.shapes == "multifunction", "has one function: use --shapes enumerated"),
        (
            recipe.output == "image" and recipe.shapes == "enumerated",
            "has no image output of several sizes (coremltools 9.0): use --output tensor, "
            "or --format mlprogram",
        ),
        (recipe.compression is not None, "cannot be compressed here: use --format mlprogram"),
        (recipe.target is not None, "runs from iOS 13 / macOS 10.15 on: leave --target out"),
    )


def _safety(recipe: RecipeFields) -> Iterator[Rule]:
    """A ``fp16_safety`` that has nothing to do."""
    if recipe.fp16_safety not in ("rescale", "mixed"):
        return
    yield from _headed(
        f"--fp16-safety {recipe.fp16_safety}",
        (recipe.precision != "float16", "is for --precision float16; float32 does not overflow"),
        (recipe.compression is not None, "is for decoders that are not compressed"),
        (
            recipe.fp16_safety == "rescale" and recipe.decoder == "tiny",
            "is for the KL decoders, --decoder full or small; mixed is for all",
        ),
    )


def _part(recipe: RecipeFields) -> Iterator[Rule]:
    """What only one of decoder and encoder can have."""
    if not recipe.encodes:
        yield recipe.input == "image", "--input is for --part encoder: a decoder takes latents"
        return
    yield from _headed(
        "an encoder",
        (recipe.output == "image", "gives latents: use --output tensor"),
        (recipe.chunks != 1, "is one program: leave --chunks out"),
        (recipe.tile is not None, "has no tiles: leave --tile out"),
        (
            recipe.input == "image" and recipe.format == "neuralnetwork",
            "takes 8-bit images as an ML Program only: use --format mlprogram",
        ),
    )


def _latents(recipe: RecipeFields) -> Iterator[Rule]:
    """Where the recipe cannot have its ``latents``."""
    form = recipe.latent_form
    if form == native_form(recipe.decoder):
        return
    patches = form == "packed" or recipe.variant == "flux2"
    step = PATCH * find_decoder(recipe.variant, recipe.decoder).contract.scale
    yield from _headed(
        f"--latents {form} of {recipe.variant}",
        (recipe.variant not in PACKED, "is not known: leave --latents out"),
        (
            form == "vae" and recipe.variant == "flux2",
            f"needs FLUX.2's batch-norm statistics, which the tiny {recipe.part} has not: use "
            "--latents sampler or packed, or --decoder full",
        ),
        (recipe.nhwc_model, "has no NHWC graph: --layout nhwc alone gives NHWC in and out"),
        (recipe.format == "neuralnetwork", "is for --format mlprogram"),
        (
            patches and any(side % step for s in recipe.sizes for side in (s.height, s.width)),
            f"is of 2 x 2 patches: height and width must be multiples of {step}",
        ),
        (
            form == "packed"
            and recipe.variant == "flux1"
            and recipe.shapes == "enumerated"
            and not recipe.encodes,
            "cannot tell sizes apart by their number of tokens: use --shapes multifunction",
        ),
    )


def _parts(recipe: RecipeFields) -> Iterator[Rule]:
    """What an artifact of several programs cannot be."""
    tiled, tiny = recipe.tile is not None, recipe.decoder == "tiny"
    if recipe.chunks == 1 and recipe.tile is None:
        return
    yield from _headed(
        "--tile" if tiled else "--chunks",
        (tiled and recipe.chunks != 1, "goes without --chunks"),
        (recipe.format == "neuralnetwork", "needs ML Programs: use --format mlprogram"),
        (recipe.nhwc_model, "passes on NCHW: use --layout nhwc without --nhwc-model"),
        (
            recipe.fp16_safety == "mixed",
            "has no mixed precision: use --fp16-safety rescale, or --precision float32",
        ),
        (recipe.shapes == "enumerated", "has no enumerated shapes: use --shapes multifunction"),
        (tiled and recipe.latents == "packed", "takes maps: use --latents vae or sampler"),
        (tiled and recipe.output == "image", "puts tensors together: use --output tensor"),
    )
    if recipe.tile is not None:
        yield from _tile(recipe.tile, recipe.decoder)
        odd = [s for s in recipe.sizes if s.height % (2 * SCALE) or s.width % (2 * SCALE)]
        if odd and not tiny:
            yield (
                recipe.tile_statistics == "strided",
                f"--tile-statistics strided takes every second latent pixel: expected multiples of "
                f"{2 * SCALE} px, got --size {odd[0]}",
            )
    yield (
        recipe.tile_statistics == "whole" and (not tiled or tiny),
        "--tile-statistics is for the tiles of a KL decoder: the tiny decoders' tiles need none",
    )


def _tile(tile: int, decoder: str) -> Iterator[Rule]:
    halo = HALO[decoder] * SCALE
    yield (
        bool(tile % SCALE) or not 0 < tile <= LARGEST_SIDE,
        f"--tile {tile} is not possible: expected a multiple of {SCALE} up to {LARGEST_SIDE}, "
        "such as 512",
    )
    yield (
        tile <= halo,
        f"--tile {tile} is smaller than its halo: {halo} px of the picture around a tile "
        f"reach into it, and nothing would be left; expected {halo + SCALE} or more, "
        "such as 512",
    )


def _decoder(recipe: RecipeFields) -> Iterator[Rule]:
    """What the KL decoders have no form of, and the attention, which they alone have."""
    parse_attention(recipe.attention)
    if recipe.decoder == "tiny":
        yield (
            recipe.attention != "auto",
            "the tiny networks have no attention: --attention needs --decoder full or small",
        )
        return
    yield from _headed(
        f"the {recipe.decoder} {recipe.part}",
        (recipe.format == "neuralnetwork", "has no neuralnetwork form: use --format mlprogram"),
        (recipe.nhwc_model, "has no NHWC graph: --layout nhwc alone gives NHWC in and out"),
        (
            recipe.shapes == "enumerated",
            "has an attention of one size: use --shapes multifunction",
        ),
    )


_TOPICS: tuple[Callable[[RecipeFields], Iterator[Rule]], ...] = (
    _shapes, _format, _part, _safety, _latents, _parts, _decoder,
)  # fmt: skip
