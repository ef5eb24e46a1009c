"""A small part of ``make fuzz``: damaged files against every reader, the same ones each time."""

from pathlib import Path

import pytest

from tests.fuzz.run import KINDS, run_here


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_are_taken_or_refused_in_words(kind: str, tmp_path: Path) -> None:
    result = run_here(24, seed=0, kind=kind, corpus=tmp_path / "corpus", scratch=tmp_path / "run")
    assert result.failures == []
    assert result.counts[kind, "refused"] > 4  # the damage arrives
    assert sum(result.counts.values()) == 24
