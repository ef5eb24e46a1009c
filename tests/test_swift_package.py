"""`swift build` and `swift test` of swift/, with no warnings."""

import re

import pytest

from tests.swift_toolchain import SwiftBuild, needs_swift, result_key, run_swift

pytestmark = [pytest.mark.slow, needs_swift]
PASSED = "fluxvae/swift-tests"  # in pytest's cache: the key with which they last passed


def test_the_swift_tests_pass(swift_build: SwiftBuild, pytestconfig: pytest.Config) -> None:
    assert pytestconfig.cache is not None
    key = result_key(swift_build)
    if pytestconfig.cache.get(PASSED, None) == key:
        pytest.skip(
            f"the result is from pytest's cache: they passed with these Swift sources ({key}). "
            "To run them again: pytest --cache-clear"
        )
    output = run_swift("test", "--skip-build", *swift_build.options)
    ran = re.search(r"Test run with (\d+) tests? in \d+ suites? passed", output)
    assert ran, output
    assert int(ran[1]) > 0
    assert not re.findall(r"skipped: .*FLUXVAE_PYTHON", output), (
        "the tests with models were skipped"
    )
    pytestconfig.cache.set(PASSED, key)
