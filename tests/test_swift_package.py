"""`swift build` and `swift test` of swift/, with no warnings."""

import re

import pytest

from tests.swift_toolchain import ROOT, needs_swift, run_swift

pytestmark = [pytest.mark.slow, needs_swift]

# Kept between runs, in a folder that git ignores, so that a second run compiles what changed. A
# build of its own: its flag makes a warning an error, without which one would be seen only once.
PLACE = ("--package-path", "swift", "--scratch-path", ROOT / "swift" / ".build" / "pytest")


@pytest.fixture(scope="module")
def built() -> None:
    run_swift("build", "--build-tests", *PLACE, "-Xswiftc", "-warnings-as-errors")


@pytest.mark.usefixtures("built")
def test_the_swift_tests_pass() -> None:
    output = run_swift("test", "--skip-build", *PLACE)
    ran = re.search(r"Test run with (\d+) tests? in \d+ suites? passed", output)
    assert ran, output
    assert int(ran[1]) > 0
    assert not re.findall(r"skipped: .*FLUXVAE_PYTHON", output), (
        "the tests with models were skipped"
    )
