"""Names and shapes of the KL autoencoders, and Black Forest Labs' names as diffusers'.

Both families' networks are one: diffusers' ``decoder.up_blocks.0`` is BFL's ``decoder.up.3`` (they
count from the image), its Linear ``to_q`` is a 1x1 convolution ``q``. Sources:
``models/autoencoders/vae.py`` of https://github.com/huggingface/diffusers and ``autoencoder.py``
of https://github.com/black-forest-labs/flux and https://github.com/black-forest-labs/flux2.
"""

import re
from collections.abc import Iterable, Iterator

from fluxvae.catalog import KLForm

Shape = tuple[int, ...]

KL_DIFFUSERS = "diffusers AutoencoderKL"
KL_BFL = "Black Forest Labs autoencoder"

RESNETS = {"decoder": 3, "encoder": 2}  # residual blocks in each stage
STATISTICS = ("bn.running_mean", "bn.running_var")

_DIFFUSERS = re.compile(r"\b(?:up_blocks|down_blocks|mid_block)\.")
_BFL = re.compile(
    r"(?:^|\.)(?:mid\.(?:block|attn)_\d|(?:up|down)\.\d+\.(?:block|upsample|downsample))"
)

# BFL's names in diffusers' terms, inside one part. ``{last}`` is the number of the last stage:
# diffusers counts the decoder's stages from the latent.
_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
_PLACES = (
    (re.compile(r"mid\.block_([12])\."), lambda m, _: f"mid_block.resnets.{int(m[1]) - 1}."),
    (
        re.compile(r"mid\.attn_1\.(norm|q|k|v|proj_out)\."),
        lambda m, _: f"mid_block.attentions.0.{_ATTENTION[m[1]]}.",
    ),
    (
        re.compile(r"up\.(\d+)\.block\.(\d+)\."),
        lambda m, last: f"up_blocks.{last - int(m[1])}.resnets.{m[2]}.",
    ),
    (
        re.compile(r"up\.(\d+)\.upsample\.conv\."),
        lambda m, last: f"up_blocks.{last - int(m[1])}.upsamplers.0.conv.",
    ),
    (re.compile(r"down\.(\d+)\.block\.(\d+)\."), r"down_blocks.\1.resnets.\2."),
    (re.compile(r"down\.(\d+)\.downsample\.conv\."), r"down_blocks.\1.downsamplers.0.conv."),
    (re.compile(r"norm_out\."), "conv_norm_out."),
)
_SHORTCUT = ("nin_shortcut.", "conv_shortcut.")
_PROJECTION = re.compile(r"mid_block\.attentions\.0\.to_(?:q|k|v|out\.0)\.weight")
_OF_BOTH = ("bn.num_batches_tracked",)  # a counter of training: no weight


def kl_style(names: Iterable[str]) -> str | None:
    """The key style when these are a KL autoencoder's names, else None."""
    names = list(names)
    if any(_DIFFUSERS.search(name) for name in names):
        return KL_DIFFUSERS
    return KL_BFL if any(_BFL.search(name) for name in names) else None


def kl_parts(names: Iterable[str]) -> tuple[dict[str, dict[str, str]], tuple[str, ...]]:
    """({part: {diffusers' name in the part: the file's name}}, names that belong to neither).

    Bare names, as of a file with a decoder alone, belong to the part whose stages they have.
    """
    names = [name for name in names if not name.endswith(_OF_BOTH)]
    bare = _bare_part(names)
    parts: dict[str, dict[str, str]] = {}
    unknown = []
    for name in names:
        part, rest = _part_of(name, bare)
        if part is None:
            unknown.append(name)
        else:
            parts.setdefault(part, {})[rest] = name
    for part in parts:
        last = _last_stage(parts[part])
        parts[part] = {to_diffusers(rest, last): name for rest, name in parts[part].items()}
    # Statistics alone do not make a decoder.
    if all(name.startswith(("bn.", "post_quant_conv.")) for name in parts.get("decoder", ())):
        unknown += parts.pop("decoder", {}).values()
    return parts, tuple(unknown)


def _bare_part(names: list[str]) -> str | None:
    if any(name.startswith(("decoder.", "encoder.")) for name in names):
        return None
    return "decoder" if any(name.startswith(("up.", "up_blocks.")) for name in names) else "encoder"


def _part_of(name: str, bare: str | None) -> tuple[str | None, str]:
    """The part a name belongs to, and the rest of it. BFL puts the 1x1 convolutions inside."""
    for part in ("decoder", "encoder"):
        if name.startswith(f"{part}."):
            return part, name.removeprefix(f"{part}.")
    if name.startswith(("post_quant_conv.", "bn.")):
        return "decoder", name
    if name.startswith("quant_conv."):
        return "encoder", name
    return bare, name


def _last_stage(names: Iterable[str]) -> int:
    found = (re.match(r"up\.(\d+)\.", name) for name in names)
    return max((int(match[1]) for match in found if match), default=0)


def to_diffusers(name: str, last: int) -> str:
    """One name inside a part, in BFL's or diffusers' style, as diffusers'.

    ``last`` is the number of BFL's last up stage: 3 in every FLUX decoder.
    """
    for pattern, form in _PLACES:
        match = pattern.match(name)
        if match:
            place = form(match, last) if callable(form) else match.expand(form)
            return (place + name[match.end() :]).replace(*_SHORTCUT)
    return name


def stored_shape(name: str, shape: Shape) -> Shape:
    """The shape a parameter is used in: a 1x1 convolution of the attention is a matrix."""
    if _PROJECTION.fullmatch(name) and len(shape) == 4 and shape[2:] == (1, 1):
        return shape[:2]
    return shape


def kl_shapes(part: str, channels: int, form: KLForm) -> dict[str, Shape]:
    """Every parameter name of a KL network and its shape, in diffusers' naming.

    ``channels`` are the latent's. A test holds this table against ``fluxvae.models.kl``.
    """
    if part == "decoder":
        widths = form.widths[::-1]
        stages, first, last = "up_blocks", widths[0], widths[-1]
        middle, ends = widths[0], (channels, 3)
    else:
        widths = form.encoder_widths
        stages, first, last = "down_blocks", widths[0], widths[-1]
        middle, ends = widths[-1], (3, 2 * channels)
    shapes = dict(_conv("conv_in", ends[0], first))
    shapes |= _middle(middle)
    before = first
    for stage, width in enumerate(widths):
        for index in range(RESNETS[part]):
            shapes |= _resnet(f"{stages}.{stage}.resnets.{index}", before, width)
            before = width
        if stage + 1 < len(widths):
            step = "upsamplers" if part == "decoder" else "downsamplers"
            shapes |= _conv(f"{stages}.{stage}.{step}.0.conv", width, width)
    shapes |= _norm("conv_norm_out", last)
    shapes |= _conv("conv_out", last, ends[1])
    if form.quant_convs:
        shapes |= _quant(part, channels)
    return shapes


def _quant(part: str, channels: int) -> dict[str, Shape]:
    if part == "encoder":
        return dict(_conv("quant_conv", 2 * channels, 2 * channels, 1))
    shapes: dict[str, Shape] = dict(_conv("post_quant_conv", channels, channels, 1))
    return shapes | dict.fromkeys(STATISTICS, (4 * channels,))


def _conv(name: str, before: int, after: int, size: int = 3) -> dict[str, Shape]:
    return {f"{name}.weight": (after, before, size, size), f"{name}.bias": (after,)}


def _norm(name: str, width: int) -> dict[str, Shape]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _resnet(name: str, before: int, after: int) -> dict[str, Shape]:
    shapes = {
        **_norm(f"{name}.norm1", before),
        **_conv(f"{name}.conv1", before, after),
        **_norm(f"{name}.norm2", after),
        **_conv(f"{name}.conv2", after, after),
    }
    return shapes if before == after else shapes | _conv(f"{name}.conv_shortcut", before, after, 1)


def _middle(width: int) -> dict[str, Shape]:
    attention = "mid_block.attentions.0"
    shapes = {
        **_resnet("mid_block.resnets.0", width, width),
        **_norm(f"{attention}.group_norm", width),
    }
    for name in _projections(attention):
        shapes |= {f"{name}.weight": (width, width), f"{name}.bias": (width,)}
    return shapes | _resnet("mid_block.resnets.1", width, width)


def _projections(attention: str) -> Iterator[str]:
    return (f"{attention}.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0"))
