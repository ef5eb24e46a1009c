"""Narrow KL decoders for the tests, diffusers' own of the same weights, and BFL's key style.

Real widths cost minutes a test; nothing but time and memory depends on them.
"""

from dataclasses import replace
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderKLFlux2
from torch import Tensor, nn

from fluxvae.networks.catalog import KL_CATALOG, Decoder, find_decoder
from fluxvae.networks.kl_keys import RESNETS
from fluxvae.networks.weights import Weights, load_entry

KINDS = tuple(sorted(KL_CATALOG))  # (variant, kind)
NARROW = (32, 64, 128, 128)
NARROW_ENCODER = (32, 64, 64, 96)  # not the decoder's, so that one cannot stand for the other


def narrow_entry(variant: str, kind: str = "full") -> Decoder:
    """A catalogue entry with few channels; ``small`` has another last width than ``full``."""
    entry = find_decoder(variant, kind)
    assert entry.kl is not None
    widths = NARROW if kind == "full" else (32, 64, 96, 96)
    return replace(entry, kl=replace(entry.kl, widths=widths, encoder_widths=NARROW_ENCODER))


def narrow_weights(
    variant: str, kind: str = "full", seed: int = 0, part: str = "decoder"
) -> Weights:
    """Random weights of a narrow entry; no affine is the identity."""
    return load_entry(narrow_entry(variant, kind), f"random:{seed}", part=part)


def diffusers_names(*parts: Weights) -> dict[str, Tensor]:
    """The names of diffusers' whole autoencoder."""
    named: dict[str, Tensor] = {}
    for weights in parts:
        for name, tensor in weights.tensors.items():
            apart = name.startswith(("post_quant_conv.", "quant_conv.", "bn."))
            named[name if apart else f"{weights.part}.{name}"] = tensor
    return named


def autoencoder(entry: Decoder, *parts: Weights) -> nn.Module:
    """diffusers' own class in the entry's form, with these weights where they are given.

    FLUX.1's class has equal widths in both parts: the decoder's, but for an encoder alone. Its
    stages are as long as ours (``tests.kl_hot.short_stages``).
    """
    form = entry.kl
    assert form is not None
    common: dict[str, Any] = {
        "block_out_channels": form.encoder_widths,
        "layers_per_block": RESNETS["decoder"] - 1,  # diffusers' decoders have one more
        "latent_channels": entry.contract.channels,
        "norm_num_groups": form.groups,
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
    }
    if entry.variant == "flux2":
        made = AutoencoderKLFlux2(**common, decoder_block_out_channels=form.widths)
    else:
        if [weights.part for weights in parts] != ["encoder"]:
            common["block_out_channels"] = form.widths
        made = AutoencoderKL(**common, use_quant_conv=False, use_post_quant_conv=False)
    if parts:
        missing, unexpected = made.load_state_dict(diffusers_names(*parts), strict=False)
        given = tuple(f"{weights.part}." for weights in parts)
        assert not unexpected
        assert not [name for name in missing if name.startswith(given)]
    return made.eval().requires_grad_(False)


def bfl_names(named: dict[str, Tensor]) -> dict[str, Tensor]:
    """Black Forest Labs' names for diffusers' (tests/test_kl_weights.py holds them against it)."""
    renamed = {}
    for name, tensor in named.items():
        new = name
        for stage in range(4):
            new = new.replace(f".up_blocks.{stage}.upsamplers.0.", f".up.{3 - stage}.upsample.")
            new = new.replace(f".up_blocks.{stage}.resnets.", f".up.{3 - stage}.block.")
            new = new.replace(f".down_blocks.{stage}.downsamplers.0.", f".down.{stage}.downsample.")
            new = new.replace(f".down_blocks.{stage}.resnets.", f".down.{stage}.block.")
        for ours, theirs in (
            (".mid_block.resnets.0.", ".mid.block_1."),
            (".mid_block.resnets.1.", ".mid.block_2."),
            (".mid_block.attentions.0.group_norm.", ".mid.attn_1.norm."),
            (".mid_block.attentions.0.to_out.0.", ".mid.attn_1.proj_out."),
            (".mid_block.attentions.0.to_", ".mid.attn_1."),
            (".conv_shortcut.", ".nin_shortcut."),
            (".conv_norm_out.", ".norm_out."),
        ):
            new = new.replace(ours, theirs)
        inside = {"post_quant_conv.": "decoder.", "quant_conv.": "encoder."}
        new = next((part + new for start, part in inside.items() if new.startswith(start)), new)
        matrix = "attn_1" in new and tensor.dim() == 2
        renamed[new] = (tensor[:, :, None, None] if matrix else tensor).clone()
    return renamed


def latent(channels: int, height: int = 8, width: int = 12, seed: int = 0) -> Tensor:
    """Standard normal, not square, so that a swapped axis shows."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, channels, height, width, generator=generator)
