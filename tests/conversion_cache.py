"""The conversion cache: what was converted before is copied, in this run of the tests or another.

``install`` puts ``write_model``, ``write_halves`` and ``write_tiled`` behind it wherever fluxvae
uses them; a test module that imports one of them itself has the converter's own. What is done to a
model afterwards (metadata, reading it again, checks, compression) is done each time.

The key is everything that a conversion depends on: the function, recipe, channels, the network's
modules with their source files, every weight, the source of what ``fluxvae.convert.program``
imports, and the versions of the packages. While a test replaces a function of these, nothing is
read or kept.
"""

import ast
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache, wraps
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import filelock
import numpy as np
import torch
from torch import nn

from fluxvae.convert.parts import write_halves as write_halves_now
from fluxvae.convert.parts import write_tiled as write_tiled_now
from fluxvae.convert.program import write_model as write_model_now
from fluxvae.recipes import Recipe
from tests.conversion_folder import FOLDER

Write = Callable[..., None]


def behind_cache(write: Write) -> Write:
    """``write``, copying what an earlier call with the same arguments has written."""

    @wraps(write)
    def write_or_copy(
        decoder: nn.Module, recipe: Recipe, channels: int, path: Any, **options: Any
    ) -> None:
        paths = path if isinstance(path, tuple) else (path,)
        key = None
        if FOLDER in os.environ and not options.get("verbose") and not _code_is_replaced():
            key = _key(write, decoder, recipe, channels, options.get("keep"))
        if key is None:
            write(decoder, recipe, channels, path, **options)
            return
        entry = Path(os.environ[FOLDER]) / key
        names = [f"{i}{path.suffix}" for i, path in enumerate(paths)]
        entry.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(f"{entry}.lock"):
            if not entry.is_dir():
                with tempfile.TemporaryDirectory(dir=entry.parent) as folder:
                    drafts = tuple(Path(folder, "made", name) for name in names)
                    drafts[0].parent.mkdir()
                    to = drafts if isinstance(path, tuple) else drafts[0]
                    write(decoder, recipe, channels, to, **options)
                    drafts[0].parent.rename(entry)
            os.utime(entry)
            for name, target in zip(names, paths, strict=True):
                copy = shutil.copytree if (entry / name).is_dir() else shutil.copyfile
                copy(entry / name, target)

    return write_or_copy


write_model = behind_cache(write_model_now)
write_halves = behind_cache(write_halves_now)
write_tiled = behind_cache(write_tiled_now)
BEHIND = {write.__name__: write for write in (write_model, write_halves, write_tiled)}


@cache
def install() -> None:
    """Let ``fluxvae`` convert by way of the cache, from now on."""
    for module in [m for name, m in sys.modules.items() if name.startswith("fluxvae.")]:
        for name, write in BEHIND.items():
            if vars(module).get(name) is write.__wrapped__:  # type: ignore[attr-defined]
                setattr(module, name, write)
    _code()


def _key(
    write: Write,
    decoder: nn.Module,
    recipe: Recipe,
    channels: int,
    keep: Mapping[Any, frozenset[str]] | None,
) -> str | None:
    """None for a network that cannot be described."""
    # Forms of compression are written in afterwards; of conversion they change only the target,
    # and for image outputs the passes.
    target = None if recipe.format == "neuralnetwork" else recipe.deployment_target
    plain = replace(recipe, compression=None, target=target)
    passes = recipe.compression is not None and recipe.output == "image"
    kept = {size: sorted(names) for size, names in (keep or {}).items()}
    digest = hashlib.sha256(_code().encode())
    digest.update(f"{write.__name__} {plain!r} {passes} {channels} {kept}\n{decoder!r}".encode())
    for part in _description(decoder):
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
    """Modules of ``fluxvae`` that the converter imports, directly or not, and their files."""
    found: dict[str, Path] = {}
    wanted = [write.__module__ for write in BEHIND.values()]
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
