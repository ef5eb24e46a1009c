"""Finding Swift, and building the harness once, with a compiler of our own making."""

import sys
import threading
from pathlib import Path

import pytest

from fluxvae.device.host import Answer
from fluxvae.device.swift import (
    Toolchain,
    build_harness,
    build_key,
    find_toolchain,
    harness_place,
    packaged_sources,
    source_files,
)
from fluxvae.errors import OutputError, ToolError
from tests.packages import tree

# What SwiftPM would do, as far as the builder can see: a program below the scratch path.
SWIFT = """#!{python}
import pathlib, sys, time
arguments = sys.argv[1:]
value = lambda name: pathlib.Path(arguments[arguments.index(name) + 1])
package, scratch = value("--package-path"), value("--scratch-path")
(pathlib.Path(__file__).parent / "calls").open("a").write(" ".join(arguments) + "\\n")
folder = scratch / "release"
if "--show-bin-path" in arguments:
    print(folder)
    sys.exit()
source = (package / "Sources" / "main.swift").read_text()
time.sleep(0.3)
if "broken" in source:
    print("main.swift:1:1: error: this is broken", file=sys.stderr)
    print("error: fatalError", file=sys.stderr)
    sys.exit(1)
folder.mkdir(parents=True)
program = folder / "fluxvae-harness"
program.write_text("#!/bin/sh\\necho built from " + source)
program.chmod(0o755)
"""


@pytest.fixture
def toolchain(tmp_path: Path) -> Toolchain:
    folder = tmp_path / "toolchain"
    folder.mkdir()
    program = folder / "swift"
    program.write_text(SWIFT.format(python=sys.executable))
    program.chmod(0o755)
    return Toolchain(str(program), "Swift version 6.3")


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    folder = tmp_path / "site-packages" / "swift_sources"
    (folder / "Sources").mkdir(parents=True)
    (folder / "Tests").mkdir()
    (folder / "Package.swift").write_text("// manifest")
    (folder / "Sources" / "main.swift").write_text("one")
    (folder / ".build").mkdir()
    (folder / ".build" / "junk").write_text("not a source")
    return folder


def builds(toolchain: Toolchain) -> int:
    """How often the compiler was asked to build."""
    calls = Path(toolchain.program).parent / "calls"
    lines = calls.read_text().splitlines() if calls.exists() else []
    return sum("--show-bin-path" not in line for line in lines)


def test_toolchain_is_found_or_what_is_needed_is_said() -> None:
    answer = Answer(0, "Swift version 6.3.1\nTarget: x86_64", "")
    found = find_toolchain(lambda _: "/x/swift", lambda _: answer)
    assert found == Toolchain("/x/swift", answer.out)
    with pytest.raises(ToolError, match=r"no Swift toolchain found .*swift\.org.*without Swift"):
        find_toolchain(lambda _: None)
    for silent in (None, Answer(1, "", "error: no developer tools\nmore")):
        with pytest.raises(ToolError, match="--version does not answer"):
            find_toolchain(lambda _: "/x/swift", lambda _, s=silent: s)


def test_checkout_has_the_sources() -> None:
    folder = packaged_sources()
    names = {p.as_posix() for p in source_files(folder)}
    assert "Package.swift" in names
    assert "Sources/fluxvae-harness/Main.swift" in names
    assert not any(name.startswith(".build") for name in names)


def test_harness_is_built_once_into_a_folder_that_stays(
    toolchain: Toolchain, sources: Path, tmp_path: Path
) -> None:
    cache, said = tmp_path / "cache", []
    first = build_harness(cache, {}, toolchain=toolchain, sources=sources, say=said.append)
    assert first == harness_place(cache, sources, toolchain)
    assert first.read_text().endswith("built from one")
    assert len(said) == 1
    again = build_harness(cache, {}, toolchain=toolchain, sources=sources, say=said.append)
    assert (again, builds(toolchain), len(said)) == (first, 1, 1)
    assert sorted(p.name for p in first.parent.iterdir()) == ["build.json", "fluxvae-harness"]
    left = {p.name for p in (cache / "harness").iterdir()}
    assert left == {first.parent.name, f"{first.parent.name}.lock"}  # no scratch folder


def test_other_sources_or_another_compiler_are_another_build(
    toolchain: Toolchain, sources: Path
) -> None:
    key = build_key(sources, toolchain)
    assert build_key(sources, Toolchain(toolchain.program, "Swift version 6.4")) != key
    (sources / ".build" / "junk").write_text("other")
    (sources / "README.md").write_text("not built")
    assert build_key(sources, toolchain) == key
    (sources / "Sources" / "main.swift").write_text("two")
    assert build_key(sources, toolchain) != key


def test_read_only_sources_are_left_as_they_were(
    toolchain: Toolchain, sources: Path, tmp_path: Path
) -> None:
    before = tree(sources)
    for path in (sources / "Sources", sources):
        path.chmod(0o555)
    try:
        build_harness(tmp_path / "cache", {}, toolchain=toolchain, sources=sources)
    finally:
        for path in (sources, sources / "Sources"):
            path.chmod(0o755)
    assert tree(sources) == before


def test_two_builders_at_once_build_once(
    toolchain: Toolchain, sources: Path, tmp_path: Path
) -> None:
    results: list[Path] = []

    def work() -> None:
        results.append(build_harness(tmp_path / "cache", {}, toolchain=toolchain, sources=sources))

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 3
    assert len(set(results)) == 1
    assert builds(toolchain) == 1


def test_failed_build_says_why_and_leaves_nothing(
    toolchain: Toolchain, sources: Path, tmp_path: Path
) -> None:
    (sources / "Sources" / "main.swift").write_text("broken")
    with pytest.raises(
        ToolError, match=r"was not built .*code 1.*: error: this is broken"
    ) as caught:
        build_harness(tmp_path / "cache", {}, toolchain=toolchain, sources=sources)
    assert "\n" not in str(caught.value)
    assert [p.suffix for p in (tmp_path / "cache" / "harness").iterdir()] == [".lock"]
    # and the next try is a fresh one
    (sources / "Sources" / "main.swift").write_text("mended")
    place = build_harness(tmp_path / "cache", {}, toolchain=toolchain, sources=sources)
    assert "mended" in place.read_text()


def test_cache_that_cannot_be_written_is_named(
    toolchain: Toolchain, sources: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot write"):
        build_harness(tmp_path / "file", {}, toolchain=toolchain, sources=sources)
