"""Fixtures for compressed packages."""

import pytest

from tests.compress.packages import Bases


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Bases:
    """Converted packages of a small decoder, each made once."""
    return Bases(tmp_path_factory.mktemp("bases"))
