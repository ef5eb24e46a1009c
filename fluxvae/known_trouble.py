"""Versions of other packages that are known to trouble fluxvae, each with its reason."""

import re
from collections.abc import Callable
from dataclasses import dataclass

ISSUES = "https://github.com/apple/coremltools/issues"


@dataclass(frozen=True)
class KnownTrouble:
    """Versions of ``package`` in [``first``, ``below``) that trouble; None is open.

    Only where ``beside`` (a package) is older than ``beside_below``, when that is given.
    """

    package: str
    first: tuple[int, ...] | None
    below: tuple[int, ...] | None
    status: str
    meaning: str
    advice: str
    beside: str | None = None
    beside_below: tuple[int, ...] | None = None
    blocks: tuple[str, ...] = ()


KNOWN_TROUBLE = (
    KnownTrouble(
        "numpy",
        (2, 4),
        None,
        "warn",
        f"coremltools before 9.1 cannot convert with numpy 2.4 or newer ({ISSUES}/2633)",
        "pip install 'numpy<2.4'",
        beside="coremltools",
        beside_below=(9, 1),
        blocks=("convert",),
    ),
    KnownTrouble(
        "coremltools",
        None,
        (9, 0),
        "warn",
        "older than 9.0: its passes and op lists differ from those fluxvae was tested with",
        "pip install coremltools==9.0",
    ),
    KnownTrouble(
        "coremltools",
        (9, 0, 1),
        None,
        "warn",
        "newer than 9.0: its passes and op lists differ from those fluxvae was tested with",
        "pip install coremltools==9.0",
    ),
    KnownTrouble(
        "torch",
        None,
        (2, 7),
        "warn",
        "older than 2.7: torch.export gives other programs there; not tested",
        "pip install 'torch>=2.7,<2.14'",
    ),
    KnownTrouble(
        "torch",
        (2, 14),
        None,
        "warn",
        f"newer than 2.13, the last that was tested with coremltools 9.0 ({ISSUES}/2615)",
        "pip install 'torch>=2.7,<2.14', or validate every model you convert",
    ),
    KnownTrouble(
        "scikit-learn",
        (1, 5, 2),
        None,
        "info",
        "newer than coremltools 9.0's limit 1.5.1, which concerns converting scikit-learn's own "
        f"models ({ISSUES}/2288); k-means palettization works",
        "",
    ),
    KnownTrouble(
        "python",
        (3, 14),
        None,
        "warn",
        f"not tested; wheels of coremltools without compiled parts are reported ({ISSUES}/2617)",
        "use Python 3.11 to 3.13 if something fails",
    ),
)


def find_trouble(
    package: str, version: str, version_of: Callable[[str], str | None]
) -> KnownTrouble | None:
    """The first entry for this version of a package; ``version_of`` gives the others' versions."""
    numbers = parse_version(version)
    for trouble in KNOWN_TROUBLE:
        if trouble.package == package and _contains(trouble, numbers):
            if trouble.beside is None or trouble.beside_below is None:
                return trouble
            other = version_of(trouble.beside)
            if other is not None and parse_version(other) < trouble.beside_below:
                return trouble
    return None


def _contains(trouble: KnownTrouble, numbers: tuple[int, ...]) -> bool:
    after = trouble.first is None or numbers >= trouble.first
    return after and (trouble.below is None or numbers < trouble.below)


def parse_version(text: str) -> tuple[int, ...]:
    """The numbers a version starts with: ``2.13.0+cpu`` to (2, 13, 0)."""
    match = re.match(r"\d+(\.\d+)*", text)
    return tuple(int(part) for part in match[0].split(".")) if match else ()
