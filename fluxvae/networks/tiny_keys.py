"""Names and shapes of the tiny autoencoders, in taesd's naming.

Source: ``taesd.py`` of https://github.com/madebyollin/taesd.
"""

from fluxvae.networks.kl_keys import Shape

_WIDTH = 64
_POOL_WIDTH = 4 * _WIDTH
# Indices in the Sequentials of taesd.py: residual blocks, those at latent resolution (which have
# TAEF2's GroupNorm branch), and the convolutions between stages, which have no bias.
_BLOCKS = {
    "decoder": (3, 4, 5, 8, 9, 10, 13, 14, 15, 18),
    "encoder": (1, 3, 4, 5, 7, 8, 9, 11, 12, 13),
}
_LATENT_BLOCKS = {"decoder": (3, 4, 5), "encoder": (11, 12, 13)}
_BETWEEN = {"decoder": (7, 12, 17), "encoder": (2, 6, 10)}


def expected_shapes(part: str, latent_channels: int, pool: bool) -> dict[str, Shape]:
    """Every parameter name of a tiny network and its shape, in taesd's naming.

    A test holds this table against the modules of ``fluxvae.networks.tiny``.
    """
    ends = {
        "decoder": {1: (_WIDTH, latent_channels), 19: (3, _WIDTH)},
        "encoder": {0: (_WIDTH, 3), 14: (latent_channels, _WIDTH)},
    }[part]
    shapes: dict[str, Shape] = {}
    for index, (channels_out, channels_in) in ends.items():
        shapes[f"{index}.weight"] = (channels_out, channels_in, 3, 3)
        shapes[f"{index}.bias"] = (channels_out,)
    for index in _BETWEEN[part]:
        shapes[f"{index}.weight"] = (_WIDTH, _WIDTH, 3, 3)
    for index in _BLOCKS[part]:
        for conv in (0, 2, 4):
            shapes[f"{index}.conv.{conv}.weight"] = (_WIDTH, _WIDTH, 3, 3)
            shapes[f"{index}.conv.{conv}.bias"] = (_WIDTH,)
    for index in _LATENT_BLOCKS[part] if pool else ():
        shapes[f"{index}.pool.0.weight"] = (_POOL_WIDTH, _WIDTH, 1, 1)
        shapes[f"{index}.pool.1.weight"] = (_POOL_WIDTH,)
        shapes[f"{index}.pool.1.bias"] = (_POOL_WIDTH,)
        shapes[f"{index}.pool.3.weight"] = (_WIDTH, _POOL_WIDTH, 1, 1)
    return shapes
