"""An I/O bundle's ``manifest.json`` as data. docs/io.schema.json is the same for other languages.

Standard library and ``recipes`` only.
"""

import re
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any

from fluxvae.errors import BundleError, UsageError
from fluxvae.recipes import LAYOUTS, Size, parse_sizes
from fluxvae.recipes.bounds import check_bound

MANIFEST = "manifest.json"
FORMAT = "fluxvae-io"
VERSION = 1
NUMPY_DTYPES = {"float16": "<f2", "float32": "<f4"}
METRICS = ("max_abs", "psnr_db")
SOURCES: dict[str, dict[str, type]] = {
    "normal": {"kind": str, "seed": int, "generator": str},
    "photo": {"kind": str, "photo": str, "sha256": str},
    "file": {"kind": str, "name": str, "sha256": str},
}
_HEX = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class TensorFile:
    """One ``.bin`` file: C order, little-endian. ``layout`` is of the array as stored.

    Four axes; three for a latent of tokens, which have no layout: there it is the image's.
    """

    name: str
    file: str
    dtype: str
    shape: tuple[int, ...]
    layout: str
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What a bundle holds, and what it is to be held to.

    ``limits`` is keyed by the artifact's compute precision; ``metric`` and ``bound`` are those
    of ``fluxvae.validation.validate.Limit``. ``weights`` has ``source`` (hub, file, demo, random)
    and the digest that the artifact's own metadata has to show.
    """

    variant: str
    size: Size
    case: str
    input: TensorFile
    output: TensorFile
    source: dict[str, Any]
    weights: dict[str, str]
    latent_space: str
    limits: dict[str, dict[str, Any]]
    versions: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        size = f"{self.size.height}x{self.size.width}"
        return {"format": FORMAT, "version": VERSION, **asdict(self), "size": size}


def parse_manifest(content: Any, where: str) -> Manifest:
    """The inverse of ``to_dict``. Raises BundleError that begins with ``where``; UsageError for a
    limit that no image could cross."""
    try:
        manifest = _manifest(content)
    except (_WrongError, UsageError) as error:
        raise BundleError(f"{where}: {error}") from error
    for precision, limit in manifest.limits.items():
        check_bound(limit["metric"], limit["bound"], f"{where}: limits.{precision}")
    return manifest


class _WrongError(Exception):
    """What is wrong, without the file's name."""


def _manifest(content: Any) -> Manifest:
    top = _object(content, "the manifest")
    if top.get("format") != FORMAT:
        raise _WrongError(f"expected the format {FORMAT!r}, got {top.get('format')!r}")
    if top.get("version") != VERSION:
        raise _WrongError(f"version {top.get('version')!r}; this fluxvae reads {VERSION}")
    fields = ("input", "output", "source", "weights", "limits", "versions")
    texts = ("variant", "size", "case", "latent_space")
    _keys(top, ("format", "version", *fields, *texts), "the manifest")
    text = {key: _text(top[key], key) for key in texts}
    sizes = parse_sizes(text["size"])
    if len(sizes) != 1:
        raise _WrongError(f"expected one size, got {text['size']!r}")
    return Manifest(
        variant=text["variant"],
        size=sizes[0],
        case=text["case"],
        input=_tensor(top["input"], "input", 3 if _tokens(text) else 4),
        output=_tensor(top["output"], "output", 4),
        source=_source(top["source"]),
        weights=_weights(top["weights"]),
        latent_space=text["latent_space"],
        limits=_limits(top["limits"]),
        versions={
            key: _text(value, f"versions.{key}")
            for key, value in _object(top["versions"], "versions").items()
        },
    )


def _tokens(text: dict[str, str]) -> bool:
    """Whether the latent is FLUX.1's tokens, which have no rows and columns."""
    return text["variant"] == "flux1" and text["latent_space"].endswith("-packed")


def _tensor(content: Any, where: str, axes: int) -> TensorFile:
    data = _object(content, where)
    _keys(data, ("name", "file", "dtype", "shape", "layout", "sha256"), where)
    shape = data["shape"]
    if not (
        isinstance(shape, list)
        and len(shape) == axes
        and all(type(side) is int and side > 0 for side in shape)
    ):
        count = {3: "three", 4: "four"}[axes]
        raise _WrongError(f"{where}.shape must be {count} positive whole numbers, got {shape!r}")
    file = _text(data["file"], f"{where}.file")
    if PurePath(file).name != file or "\\" in file:  # nothing outside the bundle is ever read
        raise _WrongError(f"{where}.file must be a bare file name, got {file!r}")
    return TensorFile(
        name=_text(data["name"], f"{where}.name"),
        file=file,
        dtype=_choice(data["dtype"], tuple(NUMPY_DTYPES), f"{where}.dtype"),
        shape=tuple(shape),
        layout=_choice(data["layout"], LAYOUTS, f"{where}.layout"),
        sha256=_digest(data["sha256"], f"{where}.sha256"),
    )


def _source(content: Any) -> dict[str, Any]:
    data = _object(content, "source")
    kind = _choice(data.get("kind"), tuple(SOURCES), "source.kind")
    _keys(data, tuple(SOURCES[kind]), "source")
    for key, wanted in SOURCES[kind].items():
        if type(data[key]) is not wanted:
            raise _WrongError(f"source.{key} must be a {wanted.__name__}, got {data[key]!r}")
    return data


def _weights(content: Any) -> dict[str, str]:
    data = _object(content, "weights")
    _keys(data, ("source", "digest"), "weights")
    return {
        "source": _text(data["source"], "weights.source"),
        "digest": _digest(data["digest"], "weights.digest"),
    }


def _limits(content: Any) -> dict[str, dict[str, Any]]:
    limits = _object(content, "limits")
    _keys(limits, tuple(NUMPY_DTYPES), "limits")
    for precision, limit in limits.items():
        where = f"limits.{precision}"
        _keys(_object(limit, where), ("metric", "bound"), where)
        _choice(limit["metric"], METRICS, f"{where}.metric")
        if type(limit["bound"]) not in (int, float):
            raise _WrongError(f"{where}.bound must be a number, got {limit['bound']!r}")
    return limits


def _object(content: Any, where: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        raise _WrongError(f"{where} must be a JSON object, got {type(content).__name__}")
    return content


def _keys(data: dict[str, Any], wanted: tuple[str, ...], where: str) -> None:
    missing = [key for key in wanted if key not in data]
    extra = [key for key in data if key not in wanted]
    if missing or extra:
        what = f"lacks {missing}" if missing else f"has the unknown keys {extra}"
        raise _WrongError(f"{where} {what}")


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str) or not value:
        raise _WrongError(f"{where} must be a text, got {value!r}")
    return value


def _choice(value: Any, allowed: tuple[str, ...], where: str) -> str:
    if value not in allowed or not isinstance(value, str):
        raise _WrongError(f"{where} must be one of {list(allowed)}, got {value!r}")
    return value


def _digest(value: Any, where: str) -> str:
    if not isinstance(value, str) or not _HEX.fullmatch(value):
        raise _WrongError(f"{where} must be 64 hexadecimal digits, got {value!r}")
    return value
