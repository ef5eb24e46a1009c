"""Functions of diffusers' pipelines, taken out of its source.

Importing a pipeline needs transformers, which nothing else here does; these functions need torch.
"""

import ast
import importlib.util
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor


@cache
def _function(file: str, name: str) -> Callable[..., Tensor]:
    spec = importlib.util.find_spec("diffusers")
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).parent / "pipelines" / file
    (found,) = (
        node
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name == name
    )
    found.decorator_list = []  # staticmethod
    scope: dict[str, Callable[..., Tensor]] = {"torch": torch}  # type: ignore[dict-item]
    exec(compile(ast.Module([found], []), str(source), "exec"), scope)
    return scope[name]


def unpack_flux1(tokens: Tensor, height: int, width: int) -> Tensor:
    """``FluxPipeline._unpack_latents``; height and width of the image, in pixels."""
    return _function("flux/pipeline_flux.py", "_unpack_latents")(tokens, height, width, 8)


def pack_flux1(latent: Tensor) -> Tensor:
    """``FluxPipeline._pack_latents``: (B, 16, h, w) to (B, h w / 4, 64)."""
    return _function("flux/pipeline_flux.py", "_pack_latents")(latent, *latent.shape)


def unpatchify_flux2(patches: Tensor) -> Tensor:
    """``Flux2Pipeline._unpatchify_latents``: (B, 128, h, w) to (B, 32, 2 h, 2 w)."""
    return _function("flux2/pipeline_flux2.py", "_unpatchify_latents")(patches)


def patchify_flux2(latent: Tensor) -> Tensor:
    """``Flux2Pipeline._patchify_latents``, the inverse."""
    return _function("flux2/pipeline_flux2.py", "_patchify_latents")(latent)
