"""A module with some of its parts replaced; everything else is shared with the original."""

import copy
from collections.abc import Callable, Mapping

from torch import nn


def replaced(root: nn.Module, make: Callable[[nn.Module], nn.Module | None]) -> nn.Module:
    """A copy of ``root`` in which ``make`` has replaced modules; None of it keeps one.

    Modules are asked about in the order of their registration, and a replaced one's parts are not.
    The original stays; modules in which nothing is replaced are its own.
    """
    made = make(root)
    if made is not None:
        return made.eval().requires_grad_(False)
    parts = {
        name: None if child is None else replaced(child, make)
        for name, child in root._modules.items()
    }
    if all(part is root._modules[name] for name, part in parts.items()):
        return root
    twin = copy.copy(root)
    twin._modules = parts
    return twin


def with_parts(root: nn.Module, parts: Mapping[str, nn.Module]) -> nn.Module:
    """A copy of ``root`` whose submodules of these dotted names are others. The original stays."""
    by_identity = {id(root.get_submodule(name)): part for name, part in parts.items()}
    return replaced(root, lambda module: by_identity.get(id(module)))
