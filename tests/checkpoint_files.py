"""Write checkpoints in every style and container the project reads."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from fluxvae.networks.weights import Weights

STYLES = ("taesd", "taesd prefixed", "diffusers")
KINDS = (".safetensors", ".pth")


def in_style(style: str, *parts: Weights) -> dict[str, Tensor]:
    """Rename taesd's names. ``taesd`` itself has no place for two networks."""
    renamed: dict[str, Tensor] = {}
    for weights in parts:
        for name, tensor in weights.tensors.items():
            renamed[_rename(style, weights.part, name)] = tensor
    return renamed


def _rename(style: str, part: str, name: str) -> str:
    if style == "taesd":
        return name
    if style == "taesd prefixed":
        return f"{part}.{name}"
    index, rest = name.split(".", 1)
    return f"{part}.layers.{int(index) - (part == 'decoder')}.{rest}"


def write(path: Path, tensors: dict[str, Tensor]) -> Path:
    """Save as the name's suffix says."""
    if path.suffix == ".safetensors":
        save_file(tensors, path, {"format": "pt"})
    else:
        torch.save(tensors, path)
    return path
