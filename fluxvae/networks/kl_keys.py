"""Names of the KL autoencoders: diffusers', and Black Forest Labs'.

Both families' networks are one: diffusers' ``decoder.up_blocks.0`` is BFL's ``decoder.up.3`` (they
count from the image), its Linear ``to_q`` is a 1x1 convolution ``q``. Sources:
``models/autoencoders/vae.py`` of https://github.com/huggingface/diffusers and ``autoencoder.py``
of https://github.com/black-forest-labs/flux and https://github.com/black-forest-labs/flux2.
"""

import re

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


def stored_shape(name: str, shape: Shape) -> Shape:
    """The shape a parameter is used in: a 1x1 convolution of the attention is a matrix."""
    if _PROJECTION.fullmatch(name) and len(shape) == 4 and shape[2:] == (1, 1):
        return shape[:2]
    return shape
