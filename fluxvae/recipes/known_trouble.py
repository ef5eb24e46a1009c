"""Known trouble: versions of packages that hinder fluxvae, and what others report of Core ML.

One table. An entry applies to versions of a package, or to a form that a model or its path has;
the latter nobody here has seen, as nothing of fluxvae was run on a Mac yet.
"""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

ISSUES = "https://github.com/apple/coremltools/issues"
CORE_AI = "https://github.com/apple/coreai-models/issues"

# Forms that are reported about. A recipe's compression says which of the first four it has.
SCALED_PALETTES = "palettes with scales"
PALETTES_4_BIT = "4-bit palettes"
INTEGER_BLOCKS = "integers in blocks"
INT4 = "int4 weights"
AFTER_IDLE = "idle Neural Engine"
NOT_ASCII = "non-ASCII path"


@dataclass(frozen=True)
class Versions:
    """Versions of ``package`` in [``first``, ``below``); None is open.

    Only where ``beside`` (a package) is older than ``beside_below``, when that is given.
    """

    package: str
    first: tuple[int, ...] | None = None
    below: tuple[int, ...] | None = None
    beside: str | None = None
    beside_below: tuple[int, ...] | None = None


@dataclass(frozen=True)
class KnownTrouble:
    """What happens (``meaning``) under ``condition``, where that is written, and what to do.

    ``condition``: versions, or one of the forms above. ``blocks``: keys of ``doctor.TASKS``.
    """

    condition: Versions | str
    meaning: str
    link: str
    advice: str
    status: str = "info"
    blocks: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """The meaning with its source, and for a form whose observation it is."""
        if isinstance(self.condition, str):
            return f"{self.meaning} (reported by others, not seen here: {self.link})"
        return f"{self.meaning} ({self.link})" if self.link else self.meaning


KNOWN_TROUBLE = (
    KnownTrouble(
        Versions("numpy", first=(2, 4), beside="coremltools", beside_below=(9, 1)),
        "coremltools before 9.1 cannot convert with numpy 2.4 or newer",
        f"{ISSUES}/2633",
        "pip install 'numpy<2.4'",
        "warn",
        ("convert",),
    ),
    KnownTrouble(
        Versions("coremltools", below=(9, 0)),
        "older than 9.0: its passes and op lists differ from those fluxvae was tested with",
        "",
        "pip install coremltools==9.0",
        "warn",
    ),
    KnownTrouble(
        Versions("coremltools", first=(9, 0, 1)),
        "newer than 9.0: its passes and op lists differ from those fluxvae was tested with",
        "",
        "pip install coremltools==9.0",
        "warn",
    ),
    KnownTrouble(
        Versions("torch", below=(2, 7)),
        "older than 2.7: torch.export gives other programs there; not tested",
        "",
        "pip install 'torch>=2.7,<2.14'",
        "warn",
    ),
    KnownTrouble(
        Versions("torch", first=(2, 14)),
        "newer than 2.13, the last that was tested with coremltools 9.0",
        f"{ISSUES}/2615",
        "pip install 'torch>=2.7,<2.14', or validate every model you convert",
        "warn",
    ),
    KnownTrouble(
        Versions("scikit-learn", first=(1, 5, 2)),
        "newer than coremltools 9.0's limit 1.5.1, which concerns converting scikit-learn's own "
        "models; k-means palettization works",
        f"{ISSUES}/2288",
        "",
    ),
    KnownTrouble(
        Versions("python", first=(3, 14)),
        "not tested; wheels of coremltools without compiled parts are reported",
        f"{ISSUES}/2617",
        "use Python 3.11 to 3.13 if something fails",
        "warn",
    ),
    KnownTrouble(
        SCALED_PALETTES,
        "float tables with a scale for each channel fail to load on the Neural Engine of macOS 26",
        "https://github.com/apple/coremltools/pull/2688",
        "choose --granularity tensor or grouped:16, which have no scales",
    ),
    KnownTrouble(
        PALETTES_4_BIT,
        "4-bit palettes of coremltools 9.0 gave wrong values on the CPU of macOS 26 where float16 "
        "and int8 were right: cosine 0.03 for one model",
        f"{ISSUES}/2716",
        "choose --quantize-weights int8, or validate with --compute-units cpuOnly on that Mac",
    ),
    KnownTrouble(
        INTEGER_BLOCKS,
        "integers with a scale for each block gave wrong values on the Neural Engine without an "
        "error: cosine 0.37, palettes 0.998",
        f"{CORE_AI}/279",
        "choose --granularity channel, or --palettize",
    ),
    KnownTrouble(
        INT4,
        "linear int4 weights failed to compile for the Neural Engine and ran on the GPU alone",
        f"{CORE_AI}/205",
        "choose --palettize 4, or --quantize-weights int8",
    ),
    KnownTrouble(
        AFTER_IDLE,
        "after more than 5 s without work the Neural Engine takes about 260 ms to wake, and some "
        "three calls to full speed",
        "https://arxiv.org/abs/2606.22283",
        "time first calls apart from the others, as `fluxvae bench` does",
    ),
    KnownTrouble(
        NOT_ASCII,
        "a model whose path has characters other than ASCII did not run on the Neural Engine",
        "https://github.com/apple/ml-stable-diffusion/issues/136",
        "keep it in a folder of plain letters and digits",
    ),
)


def find_trouble(
    package: str, version: str, version_of: Callable[[str], str | None]
) -> KnownTrouble | None:
    """The first entry for this version of a package; ``version_of`` gives the others' versions."""
    numbers = parse_version(version)
    for trouble in KNOWN_TROUBLE:
        asked = trouble.condition
        if isinstance(asked, Versions) and asked.package == package and _contains(asked, numbers):
            if asked.beside is None or asked.beside_below is None:
                return trouble
            other = version_of(asked.beside)
            if other is not None and parse_version(other) < asked.beside_below:
                return trouble
    return None


def form_troubles(forms: Collection[str] | None = None) -> tuple[KnownTrouble, ...]:
    """The entries for these forms, in the table's order; for all forms with None."""
    return tuple(
        trouble
        for trouble in KNOWN_TROUBLE
        if isinstance(trouble.condition, str) and (forms is None or trouble.condition in forms)
    )


def path_note(path: Path) -> str | None:
    """What to know about a model at ``path``; None for the usual path."""
    if str(path.absolute()).isascii():
        return None
    (trouble,) = form_troubles([NOT_ASCII])
    return f"note: {path}: {trouble.sentence}; {trouble.advice}"


def _contains(versions: Versions, numbers: tuple[int, ...]) -> bool:
    after = versions.first is None or numbers >= versions.first
    return after and (versions.below is None or numbers < versions.below)


def parse_version(text: str) -> tuple[int, ...]:
    """The numbers a version starts with: ``2.13.0+cpu`` to (2, 13, 0)."""
    match = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(part) for part in match[0].split(".")) if match else ()
