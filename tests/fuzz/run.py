"""Runs cases in child processes, so that a crash or a hang of one is found and does not end all."""

import os
import resource
import select
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import NoReturn

from tests.fuzz.corpus import Corpus
from tests.fuzz.targets import MUTATIONS, run_case

KINDS = tuple(MUTATIONS)
SHARES = {"package": 4, "bundle": 3, "network": 3, "latents": 2, "weights": 1}
SECONDS = 30
MEMORY = 4  # GiB a case may add to what the process has
CHUNK = 200  # cases of one child


class HangError(BaseException):
    """A case took too long; no ``except Exception`` may catch it."""


@dataclass
class Result:
    """Counts of cases by kind and outcome, and a line for each failure."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def add(self, case: str, line: str) -> None:
        """Count a case; ``line``: its outcome (taken, refused, failed), and what failed."""
        outcome, _, text = line.partition(" ")
        self.counts[case.partition(":")[0], outcome] += 1
        if outcome == "failed":
            self.failures.append(f"{case}: {text}")

    def summary(self) -> str:
        kinds = sorted({kind for kind, _ in self.counts})
        parts = (
            f"{kind} {sum(n for (k, _), n in self.counts.items() if k == kind)} "
            f"({self.counts[kind, 'refused']} refused)"
            for kind in kinds
        )
        total = sum(self.counts.values())
        return f"{total} cases in {self.seconds:.0f} s: {', '.join(parts)}"


def run_many(
    runs: int,
    seed: int,
    kinds: Sequence[str],
    corpus: Path,
    scratch: Path,
    *,
    memory: int = MEMORY,
    bases: int | None = None,
    report: Callable[[str], object] = lambda line: None,
) -> Result:
    """``runs`` cases of a seed. ``bases``: damage only so many whole files of each kind.

    ``report`` gets the count after each child process, and each failure.
    """
    result, start = Result(), time.monotonic()
    names = [kind for kind in kinds for _ in range(SHARES[kind])]
    cases = [f"{names[n % len(names)]}:{seed}:{n}" for n in range(runs)]
    files = Corpus(corpus, decoders=bases is None)
    while cases:
        known = len(result.failures)
        done = _run_chunk(cases[:CHUNK], files, scratch, memory, bases, result)
        del cases[:done]
        report(f"{runs - len(cases)} of {runs}")
        for failure in result.failures[known:]:
            report(failure)
    result.seconds = time.monotonic() - start
    return result


def run_here(runs: int, seed: int, kind: str, corpus: Path, scratch: Path) -> Result:
    """Cases of one kind in this process, on three whole files."""
    result, files = Result(), Corpus(corpus, decoders=False)
    before = signal.signal(signal.SIGALRM, _hang)
    try:
        for number in range(runs):
            case = f"{kind}:{seed}:{number}"
            line = _outcome(case, files, scratch, 3)
            result.add(case, line)
    finally:
        signal.signal(signal.SIGALRM, before)
    return result


def run_alone(case: str, corpus: Path, scratch: Path) -> None:
    """One case in this process; its error, if it has one, comes out."""
    print("refused" if not _run(case, Corpus(corpus, decoders=True), scratch, None) else "taken")


def _run(case: str, files: Corpus, scratch: Path, bases: int | None) -> bool:
    kind, random = case.partition(":")[0], Random(case)
    count = files.counts()[kind]
    # the whole files of a short run are the same for every seed
    number = random.randrange(count if bases is None else min(bases, count))
    number = number if bases is None else number * count // min(bases, count)
    source = files.get(kind, number)
    shutil.rmtree(scratch, ignore_errors=True)
    folder, temporary = scratch / "case", scratch / "tmp"
    for made in (folder, temporary):
        made.mkdir(parents=True)
    tempfile.tempdir = str(temporary)
    try:
        signal.alarm(SECONDS)
        taken = run_case(kind, source, folder, random)
    finally:
        signal.alarm(0)
        tempfile.tempdir = None
    # torch makes an empty folder for a cache when some of its modules are imported
    left = [p.name for p in temporary.iterdir() if not p.name.startswith("torchinductor")]
    left += [p.name for p in folder.iterdir() if p.name not in (source.name, "out")]
    assert not left, f"left behind: {left}"
    return taken


def _outcome(case: str, files: Corpus, scratch: Path, bases: int | None) -> str:
    try:
        return "taken" if _run(case, files, scratch, bases) else "refused"
    except (Exception, HangError) as error:
        return f"failed {type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _run_chunk(
    cases: Sequence[str],
    files: Corpus,
    scratch: Path,
    memory: int,
    bases: int | None,
    result: Result,
) -> int:
    """Run cases in one child until it ends; returns how many are done, failures included."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _serve(cases, files, scratch, memory, bases, writer)
    os.close(writer)
    lines = _lines(reader, child)
    os.close(reader)
    _, status = os.waitpid(child, 0)
    for case, line in zip(cases, lines, strict=False):
        result.add(case, line)
    if len(lines) < len(cases):
        case, ended = cases[len(lines)], os.waitstatus_to_exitcode(status)
        why = f"no answer within {SECONDS} s" if ended == -signal.SIGKILL else f"ended by {ended}"
        result.add(case, f"failed the process {why}")
        return len(lines) + 1
    return len(lines)


def _lines(reader: int, child: int) -> list[str]:
    """The child's lines, one for each case; it is killed when none comes for long."""
    content = b""
    while True:
        ready, _, _ = select.select(
            [reader], [], [], SECONDS + 60
        )  # making a whole file takes long
        if not ready:
            os.kill(child, signal.SIGKILL)
            break
        piece = os.read(reader, 1 << 16)
        if not piece:
            break
        content += piece
    return content.decode().splitlines()


def _serve(
    cases: Sequence[str], files: Corpus, scratch: Path, memory: int, bases: int | None, out: int
) -> NoReturn:
    signal.signal(signal.SIGALRM, _hang)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + (memory << 30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for case in cases:
        line = _outcome(case, files, scratch, bases)
        os.write(out, f"{line}\n".encode(errors="replace"))
    os._exit(0)


def _hang(*_: object) -> NoReturn:
    raise HangError(f"took longer than {SECONDS} s")
