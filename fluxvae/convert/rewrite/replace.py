"""A module with some of its parts replaced; everything else is shared with the original."""

import copy
from collections.abc import Mapping

from torch import nn


def with_parts(root: nn.Module, parts: Mapping[str, nn.Module]) -> nn.Module:
    """A copy of ``root`` whose submodules of these dotted names are others. The original stays."""
    here = {name: part for name, part in parts.items() if "." not in name}
    below: dict[str, dict[str, nn.Module]] = {}
    for name, part in parts.items():
        head, dot, rest = name.partition(".")
        if dot:
            below.setdefault(head, {})[rest] = part
    twin = copy.copy(root)
    twin._modules = dict(root._modules)
    for head, inner in below.items():
        child = root._modules[head]
        assert child is not None
        twin._modules[head] = with_parts(child, inner)
    for name, part in here.items():
        assert name in root._modules
        twin._modules[name] = part.eval().requires_grad_(False)
    return twin
