"""The conversion cache: what was converted before is copied, in this run of the tests or another.

``install`` puts ``write_packages`` behind it wherever fluxvae uses it; a test module that imports
it itself, or ``write_model``, has the converter's own. What is done to a model afterwards
(metadata, reading it again, checks, compression) is done each time.

What has to be converted shares the exported program of its network with other conversions of the
same process: half of the time, and the same whatever precision, target or output is asked for.

The key is everything that a conversion depends on: the plan, the network's modules with their
source files, every weight, the source of what ``fluxvae.convert.program`` imports, and the versions
of the packages. While a test replaces a function of these, nothing is read or kept.
"""

import ast
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial, wraps
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import patch

import filelock
import numpy as np
import torch
from torch import nn

from fluxvae.convert import program
from fluxvae.convert.functions import Port
from fluxvae.recipes import Recipe
from fluxvae.recipes.functions import artifact_paths
from fluxvae.recipes.plan import Plan, plan_of
from tests.conversion_folder import FOLDER

Write = Callable[..., None]


def behind_cache(write: Write) -> Write:
    """``write``, copying what an earlier call with the same arguments has written."""

    @wraps(write)
    def write_or_copy(decoder: nn.Module, plan: Plan, path: Path, **options: Any) -> None:
        key = None
        if FOLDER in os.environ and not options.get("verbose") and not _code_is_replaced():
            key = _key(decoder, plan, options.get("keep"))
        if key is None:
            write(decoder, plan, path, **options)
            return
        entry = Path(os.environ[FOLDER]) / key
        kept = artifact_paths(entry / f"made{path.suffix}", plan.recipe.chunks)
        entry.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{entry}.lock"):
            if not entry.is_dir():
                with tempfile.TemporaryDirectory(dir=entry.parent) as folder:
                    draft = Path(folder, "entry", f"made{path.suffix}")
                    draft.parent.mkdir()
                    with patch.object(program, "_export", partial(_export, program._export)):
                        write(decoder, plan, draft, **options)
                    draft.parent.rename(entry)
            os.utime(entry)
            for made, target in zip(kept, artifact_paths(path, len(kept)), strict=True):
                copy = shutil.copytree if made.is_dir() else shutil.copyfile
                copy(made, target)

    return write_or_copy


write_packages = behind_cache(program.write_packages)
BEHIND = {"write_packages": write_packages}


def write_model(
    decoder: nn.Module, recipe: Recipe, channels: int, path: Path, **options: Any
) -> None:
    """As ``fluxvae.convert.program.write_model``, by way of the cache."""
    write_packages(decoder, plan_of(recipe, channels=channels), path, **options)


@cache
def install() -> None:
    """Let ``fluxvae`` convert by way of the cache, from now on."""
    for module in [m for name, m in sys.modules.items() if name.startswith("fluxvae.")]:
        for name, write in BEHIND.items():
            if vars(module).get(name) is write.__wrapped__:  # type: ignore[attr-defined]
                setattr(module, name, write)
    _code()


def _key(decoder: nn.Module, plan: Plan, keep: Mapping[Any, frozenset[str]] | None) -> str | None:
    """None for a network that cannot be described."""
    # Forms of compression are written in afterwards; of conversion they change only the target,
    # and for image outputs the passes.
    recipe = plan.recipe
    plain = replace(recipe, compression=None, target=plan.target)
    passes = recipe.compression is not None and recipe.output == "image"
    own = replace(plan.own, space="", wants="")  # words for people
    kept = {size: sorted(names) for size, names in (keep or {}).items()}
    return _digest_of(decoder, f"{_code()}{plain!r} {passes} {own} {kept}")


_EXPORTED: dict[str, Any] = {}


def _export(export: Callable[..., Any], network: nn.Module, inputs: Sequence[Port]) -> Any:
    """The network as an exported program: that of an earlier call, unless an axis is open.

    coremltools leaves it as it was (tests/test_conversion_cache.py).
    """
    key = _digest_of(network, f"{[port.shapes[0] for port in inputs]}")
    if key is None or any(port.dynamic for port in inputs):
        return export(network, inputs)
    if key not in _EXPORTED:
        if len(_EXPORTED) == 16:  # of a few megabytes each
            del _EXPORTED[next(iter(_EXPORTED))]
        _EXPORTED[key] = export(network, inputs)
    return _EXPORTED[key]


def _digest_of(network: nn.Module, more: str) -> str | None:
    """Of the network as it is described, and more; None where it cannot be described."""
    digest = hashlib.sha256(f"{more}\n{network!r}".encode())
    for part in _description(network):
        if part is None:
            return None
        digest.update(part)
    return digest.hexdigest()[:40]


def _description(decoder: nn.Module) -> Iterator[bytes | None]:
    """Every module's class, source and attributes, every tensor; None for what has none."""
    tensors = [*decoder.named_parameters(remove_duplicate=False)]
    tensors += decoder.named_buffers(remove_duplicate=False)
    for name, module in decoder.named_modules():
        kind = type(module)
        hooks = (module._forward_hooks, module._forward_pre_hooks)
        if "forward" in vars(module) or any(hooks):
            yield None
        yield f"{name} {kind.__module__}.{kind.__qualname__} {_source(kind.__module__)}".encode()
        for key in sorted(vars(module).keys() - _MODULE_ATTRIBUTES):
            value = vars(module)[key]
            if isinstance(value, torch.Tensor | np.ndarray):
                tensors.append((f"{name}.{key}", torch.as_tensor(value)))
            else:
                text = repr(value)
                yield None if " at 0x" in text else f"{key}={text}".encode()
    for name, tensor in tensors:
        yield f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode()
        yield tensor.detach().contiguous().numpy().tobytes()


_MODULE_ATTRIBUTES = vars(nn.Module()).keys()


@cache
def _source(module: str) -> str:
    """Digest of a module's file; those of torch have its version."""
    file = getattr(sys.modules[module], "__file__", None)
    if module.startswith("torch.") or file is None:
        return ""
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()


@cache
def _code() -> str:
    """Digest of the converter's source, and the versions of what it calls."""
    packages = ("coremltools", "torch", "numpy")
    parts = [f"{name}={version(name)}" for name in packages]
    parts += [f"{name}={_digest(file)}" for name, file in sorted(_imported().items())]
    _functions()  # as they are now, to compare with later
    return "\n".join([sys.version, *parts])


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@cache
def _imported() -> dict[str, Path]:
    """Modules of ``fluxvae`` that make networks or convert them, with all imports; their files."""
    found: dict[str, Path] = {}
    wanted = ["fluxvae.networks.build", *(write.__module__ for write in BEHIND.values())]
    while wanted:
        name = wanted.pop()
        if name in found or name.partition(".")[0] != "fluxvae" or not (file := _file(name)):
            continue
        found[name] = file
        wanted.append(name.rpartition(".")[0])
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                wanted += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                wanted += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return found


def _file(module: str) -> Path | None:
    """None for what is not a module (a function's name, say)."""
    try:
        spec = find_spec(module)
    except ModuleNotFoundError:
        return None
    return Path(spec.origin) if spec and spec.origin else None


@cache
def _functions() -> list[tuple[ModuleType | type, str, object]]:
    """Functions and classes of the converter's modules, and the functions of those classes."""
    found: list[tuple[ModuleType | type, str, object]] = []
    for module in (sys.modules[name] for name in _imported() if name in sys.modules):
        for name, value in vars(module).items():
            if callable(value):
                found.append((module, name, value))
            if isinstance(value, type) and value.__module__ == module.__name__:
                found += [(value, key, v) for key, v in vars(value).items() if callable(v)]
    return found


def _code_is_replaced() -> bool:
    """Whether a test has put something of its own into the converter or coremltools."""
    ct = sys.modules.get("coremltools")
    if ct is not None and not str(ct.convert.__module__).startswith("coremltools."):
        return True
    return any(vars(owner).get(name) is not value for owner, name, value in _functions())
