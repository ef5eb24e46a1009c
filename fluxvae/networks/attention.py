"""Self-attention over the positions of a map, as diffusers' autoencoders have it.

Names follow ``AttnProcessor2_0``'s block in https://github.com/huggingface/diffusers.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from fluxvae.networks.structure import Layer, Residual, Step, joined, row

EPS = 1e-6  # of every GroupNorm


class Attention(nn.Module):
    """Single-head self-attention over all positions of a map; shape (B, C, H, W) is kept.

    ``fluxvae.convert.rewrite.attention`` has the forms for Core ML; this one is diffusers'.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.channels = channels
        self.group_norm = nn.GroupNorm(groups, channels, EPS)
        self.to_q: nn.Module = nn.Linear(channels, channels)
        self.to_k: nn.Module = nn.Linear(channels, channels)
        self.to_v: nn.Module = nn.Linear(channels, channels)
        self.to_out = nn.ModuleList([nn.Linear(channels, channels)])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(self.group_norm(x))

    def mix(self, x: Tensor) -> Tensor:
        """What is added, of the normalised map."""
        tokens = x.flatten(2).transpose(1, 2)  # (B, H W, C)
        q, k, v = (part(tokens)[:, None] for part in (self.to_q, self.to_k, self.to_v))
        mixed = F.scaled_dot_product_attention(q, k, v)[:, 0]
        return self.to_out[0](mixed).transpose(1, 2).reshape(x.shape)

    def steps(self, name: str) -> tuple[Step, ...]:
        """As ``structure.Described`` asks."""
        parts = tuple(joined(name, key) for key in ("to_q", "to_k", "to_v", "to_out.0"))
        return (Residual((*row(self, name, "group_norm"), Layer(name, self.mix, parts))),)
