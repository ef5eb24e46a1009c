"""Mutated models, latents and weights against every reader: only errors of ours may come out.

``python -m tests.fuzz --runs 10000 --seed 0`` (``make fuzz``); the tests run a small part of it.
A case is named ``kind:seed:number`` and is the same on every machine: ``--case`` runs it alone.
"""

import os

os.environ["TQDM_DISABLE"] = "1"  # coremltools' progress bars

import argparse
import sys
import tempfile
from pathlib import Path

from tests.fuzz.run import KINDS, MEMORY, run_alone, run_many


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000, help="number of cases")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(KINDS), help="some of: %(default)s")
    parser.add_argument("--memory", type=int, default=MEMORY, help="GiB a case may add")
    parser.add_argument("--case", help="run one case, kind:seed:number, and show its traceback")
    parser.add_argument("--corpus", type=Path, help="folder to keep the whole files in")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch:
        corpus = options.corpus or Path(scratch, "corpus")
        if options.case:
            run_alone(options.case, corpus, Path(scratch, "case"))
            return 0
        result = run_many(
            options.runs, options.seed, options.kinds.split(","), corpus, Path(scratch, "run"),
            memory=options.memory, report=lambda line: print(line, file=sys.stderr, flush=True),
        )  # fmt: skip
    print(f"{result.summary()}; failures: {len(result.failures)}")
    return 1 if result.failures else 0


if __name__ == "__main__":
    sys.exit(main())
