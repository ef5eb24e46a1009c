"""Names and shapes of the KL autoencoders, and Black Forest Labs' names as diffusers'.

Both families' networks are one: diffusers' ``decoder.up_blocks.0`` is BFL's ``decoder.up.3`` (they
count from the image), its Linear ``to_q`` is a 1x1 convolution ``q``. Sources:
``models/autoencoders/vae.py`` of https://github.com/huggingface/diffusers and ``autoencoder.py``
of https://github.com/black-forest-labs/flux and https://github.com/black-forest-labs/flux2.
"""

import re
from collections.abc import Iterator

from fluxvae.networks.catalog import KLForm

Shape = tuple[int, ...]

KL_DIFFUSERS = "diffusers AutoencoderKL"
KL_BFL = "Black Forest Labs autoencoder"

RESNETS = {"decoder": 3, "encoder": 2}  # residual blocks in each stage
STATISTICS = ("bn.running_mean", "bn.running_var")
NO_STATISTICS = (
    "these weights have no batch-norm statistics (bn.running_mean, bn.running_var), which turn "
    "FLUX.2's sampler latents into the VAE's: use --latents vae, or the file of the whole VAE"
)
STATISTICS_EPS = 1e-4  # of FLUX.2's batch-norm over the packed latent

_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
# diffusers' names in BFL's terms, inside one part. BFL counts the decoder's four stages from the
# image.
_BFL_FORMS = (
    (re.compile(r"^mid_block\.resnets\.(\d)"), lambda m: f"mid.block_{int(m[1]) + 1}"),
    (
        re.compile(r"^mid_block\.attentions\.0\.(group_norm|to_q|to_k|to_v|to_out\.0)"),
        lambda m: f"mid.attn_1.{_ATTENTION[m[1]]}",
    ),
    (re.compile(r"^up_blocks\.(\d)\."), lambda m: f"up.{3 - int(m[1])}."),
    (re.compile(r"^down_blocks\.(\d)\."), lambda m: f"down.{m[1]}."),
    (re.compile(r"\.resnets\.(\d)\."), lambda m: f".block.{m[1]}."),
    (re.compile(r"\.(up|down)samplers\.0\."), lambda m: f".{m[1]}sample."),
    (re.compile(r"\.conv_shortcut\."), lambda _: ".nin_shortcut."),
    (re.compile(r"^conv_norm_out\."), lambda _: "norm_out."),
)
_PROJECTION = re.compile(r"mid_block\.attentions\.0\.to_(?:q|k|v|out\.0)\.weight")


def bfl_name(name: str) -> str:
    """A diffusers name inside one part, such as ``mid_block.resnets.0.norm1.bias``, as BFL's."""
    for pattern, form in _BFL_FORMS:
        name = pattern.sub(form, name)
    return name


def known_names(part: str) -> set[str]:
    """Every name, in diffusers' style, that some KL network of this form can have."""
    names = set(kl_shapes(part, 1, KLForm((1, 2, 3, 4), (1, 2, 3, 4), quant_convs=True)))
    widening = {name.replace(".conv1.", ".conv_shortcut.") for name in names}
    return names | {name for name in widening if ".conv_shortcut." in name}


def stored_shape(name: str, shape: Shape) -> Shape:
    """The shape a parameter is used in: a 1x1 convolution of the attention is a matrix."""
    if _PROJECTION.fullmatch(name) and len(shape) == 4 and shape[2:] == (1, 1):
        return shape[:2]
    return shape


def kl_shapes(part: str, channels: int, form: KLForm) -> dict[str, Shape]:
    """Every parameter name of a KL network and its shape, in diffusers' naming.

    ``channels`` are the latent's. A test holds this table against ``fluxvae.networks.kl``.
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
