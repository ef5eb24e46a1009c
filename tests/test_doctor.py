"""Findings, on machines that tests make up: versions and tools as their owners report them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from fluxvae.device.compile import Compiler
from fluxvae.device.doctor import PACKAGES, TASKS, Finding, abilities, examine
from fluxvae.device.host import Answer, Host, ask, chip, free_bytes, os_build, this_host
from fluxvae.recipes.known_trouble import (
    KNOWN_TROUBLE,
    NOT_ASCII,
    Versions,
    form_troubles,
    parse_version,
    path_note,
)

VERSIONS = {
    "coremltools": "9.0",
    "torch": "2.13.0+cpu",
    "numpy": "2.3.5",
    "protobuf": "6.32.0",
    "safetensors": "0.6.2",
    "huggingface_hub": "1.3.0",
    "pillow": "12.0.0",
    "scikit-image": "0.26.0",
    "scikit-learn": "1.5.1",
}
# Native libraries as the wheels hold them: RECORD of coremltools 9.0 for Linux, and for macOS.
LINUX_FILES = ["coremltools/libmilstoragepython.so", "coremltools/libmodelpackage.so"]
MAC_FILES = [*LINUX_FILES, "coremltools/libcoremlpython.so"]


def host(
    system: str = "Linux",
    *,
    versions: dict[str, str] = VERSIONS,
    files: Sequence[str] = LINUX_FILES,
    answers: dict[str, Answer] | None = None,
    compilers: Sequence[Compiler] = (),
) -> Host:
    """A made-up machine. ``answers`` are by the program's name; others are not there."""
    known = {"python": Answer(0, "", ""), **(answers or {})}

    def run(command: Sequence[str]) -> Answer | None:
        name = Path(command[0]).name
        return known.get("python" if name.startswith("python") else name)

    return Host(
        system=system,
        release="6.1" if system == "Linux" else "15.5",
        arch="x86_64" if system == "Linux" else "arm64",
        python=(3, 11, 7),
        memory=16 << 30,
        run=run,
        version=versions.get,
        files=lambda name: list(files) if name == "coremltools" else [],
        free=lambda folder: 100 << 30,
        compilers=lambda: list(compilers),
    )


def mac(**changes: object) -> Host:
    answers = {
        "sysctl": Answer(0, "0", ""),
        "xcode-select": Answer(0, "/Applications/Xcode.app/Contents/Developer", ""),
        "swift": Answer(0, "Apple Swift version 6.1 (swiftlang-6.1.0)\nTarget: arm64", ""),
    }
    answers.update(changes.pop("answers", {}))  # type: ignore[call-overload]
    settings: dict = {"files": MAC_FILES, "compilers": [Compiler(("xcrun", "x", "compile"))]}
    return host("Darwin", answers=answers, **{**settings, **changes})


def findings(machine: Host) -> dict[str, Finding]:
    found = examine(host=machine)
    assert len({finding.name for finding in found}) == len(found)
    return {finding.name: finding for finding in found}


def test_good_linux_machine_does_all_but_apples_part() -> None:
    found = examine(host=host())
    assert [f.name for f in found if f.status in ("warn", "missing")] == []
    assert abilities(found) == {
        "convert": True,
        "execute": True,
        "coreml": False,
        "compile": False,
        "swift": False,
    }


def test_good_mac_does_everything() -> None:
    found = examine(host=mac())
    assert [f.name for f in found if f.status in ("warn", "missing")] == []
    assert all(abilities(found).values())


@pytest.mark.parametrize(
    ("said", "able"),
    [
        (Answer(0, "Swift version 6.3.1 (swift-6.3.1-RELEASE)\nTarget: x86_64", ""), True),
        (Answer(0, "Swift version 5.10.1 (swift-5.10.1-RELEASE)", ""), False),
        (Answer(1, "", "swift: error"), False),
    ],
)
def test_swift_harness_needs_swift_6(said: Answer, able: bool) -> None:
    found = examine(host=mac(answers={"swift": said}))
    assert abilities(found)["swift"] == able
    (swift,) = (f for f in found if f.name == "Swift")
    assert ("swift.org" in swift.advice) != able


def test_rosetta_is_told() -> None:
    system = findings(mac(answers={"sysctl": Answer(0, "1", "")}))["system"]
    assert system.status == "warn"
    assert "Rosetta" in system.what
    assert "arm64" in system.advice


def test_intel_mac_without_that_switch_is_fine() -> None:
    answer = Answer(1, "", "sysctl: unknown oid 'sysctl.proc_translated'")
    assert findings(mac(answers={"sysctl": answer}))["system"].status == "ok"


def test_command_line_tools_alone_do_not_compile() -> None:
    tools = Answer(0, "/Library/Developer/CommandLineTools", "")
    found = findings(mac(answers={"xcode-select": tools}, compilers=[]))
    assert found["Xcode"].status == "warn"
    assert "xcode-select -s" in found["Xcode"].advice
    assert found["compiler"].status == "missing"
    assert not abilities(list(found.values()))["compile"]


def test_mac_without_developer_tools_starts_none_of_their_stubs() -> None:
    """``swift`` and ``xcrun`` would open an installer's window there."""
    machine = mac(answers={"xcode-select": Answer(2, "", "error: unable to get active")})
    started: list[str] = []

    def run(command: Sequence[str]) -> Answer | None:
        started.append(command[0])
        return machine.run(command)

    def never() -> list[Compiler]:
        raise AssertionError("xcrun was started")

    found = findings(replace(machine, run=run, compilers=never))
    assert found["Xcode"].status == "missing"
    assert not abilities(list(found.values()))["swift"]
    assert "swift" not in started


def test_numpy_that_breaks_coremltools_stops_conversion_only() -> None:
    found = findings(host(versions={**VERSIONS, "numpy": "2.4.0"}))
    assert found["numpy"].status == "warn"
    assert "coremltools/issues/2633" in found["numpy"].what
    can = abilities(list(found.values()))
    assert not can["convert"]
    assert can["execute"]


def test_same_numpy_is_fine_once_coremltools_is_fixed() -> None:
    found = findings(host(versions={**VERSIONS, "numpy": "2.4.0", "coremltools": "9.1"}))
    assert found["numpy"].status == "ok"
    assert found["coremltools"].status == "warn"


EDGES = {
    "torch": {"2.6.0": "warn", "2.7.0": "ok", "2.13.1+cu130": "ok", "2.14.0": "warn"},
    "coremltools": {"8.3": "warn", "9.0": "ok", "9.0.1": "warn"},
    "numpy": {"2.3.99": "ok"},
    "scikit-learn": {"1.5.1": "ok", "1.6.0": "info"},
}


@pytest.mark.parametrize(("package", "version"), [(p, v) for p in EDGES for v in EDGES[p]])
def test_edges_of_the_known_troubles(package: str, version: str) -> None:
    found = findings(host(versions={**VERSIONS, package: version}))
    assert found[package].status == EDGES[package][version]
    assert version in found[package].what


@pytest.mark.parametrize(
    ("python", "status"),
    [((3, 10, 14), "missing"), ((3, 11, 0), "ok"), ((3, 13, 0), "ok"), ((3, 14, 0), "warn")],
)
def test_edges_of_the_python_range(python: tuple[int, ...], status: str) -> None:
    assert findings(replace(host(), python=python))["Python"].status == status


@pytest.mark.parametrize("package", list(PACKAGES))
def test_package_that_is_missing_says_what_it_stops(package: str) -> None:
    versions = {name: version for name, version in VERSIONS.items() if name != package}
    found = findings(host(versions=versions))
    assert "not installed" in found[package].what
    can = abilities(list(found.values()))
    assert [task for task in ("convert", "execute") if not can[task]] == [
        task for task in PACKAGES[package] if task in ("convert", "execute")
    ]


def test_coremltools_without_its_libraries_is_told() -> None:
    """As installed where no wheel fits: https://github.com/apple/coremltools/issues/2350"""
    found = findings(mac(files=["coremltools/__init__.py", "coremltools/libmodelpackage.so"]))
    parts = found["coremltools, compiled"]
    assert parts.status == "missing"
    assert "libmilstoragepython, libcoremlpython" in parts.what
    assert parts.blocks == ("convert", "coreml")


def test_broken_executor_is_told_with_its_last_line() -> None:
    error = Answer(1, "", "Traceback ...\nImportError: libtorch.so: wrong ELF class")
    found = findings(host(answers={"python": error}))
    assert "libtorch.so: wrong ELF class" in found["executor"].what
    assert not abilities(list(found.values()))["execute"]


def test_little_memory_and_disk_are_told() -> None:
    found = findings(replace(host(), memory=2 << 30, free=lambda folder: 10 << 20))
    for name in ("memory", "disk, output", "disk, temporary"):
        assert found[name].status == "warn"
        assert found[name].advice


def test_network_is_used_only_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(url: str, **options: float) -> None:
        asked.append((url, options["timeout"]))
        raise TimeoutError("timed out")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", refuse)
    assert not [f for f in examine(host=host()) if f.name.startswith("Hub")]
    assert asked == []
    hub = [f for f in examine(host=host(), check_hub=True) if f.name.startswith("Hub")]
    assert [f.status for f in hub] == ["warn", "warn"]
    assert all("timed out" in f.what and "--weights demo" in f.advice for f in hub)
    assert all(url.startswith("http") and timeout <= 5 for url, timeout in asked)


def test_every_finding_that_is_not_well_has_advice_or_harms_nothing() -> None:
    machines = [host(), host(versions={}), mac(), mac(files=[], compilers=[])]
    for machine in machines:
        for finding in examine(host=machine):
            assert finding.status in ("ok", "info", "warn", "missing")
            assert finding.advice or finding.status in ("ok", "info")
            assert set(finding.blocks) <= set(TASKS)


def test_known_troubles_say_what_they_mean_and_where_it_is_written() -> None:
    for trouble in KNOWN_TROUBLE:
        assert trouble.meaning
        asked = trouble.condition
        if isinstance(asked, Versions):
            assert asked.package in {*PACKAGES, "python"}
            assert asked.first is not None or asked.below is not None
        else:
            assert trouble.link.startswith("https://")
            assert f"reported by others, not seen here: {trouble.link}" in trouble.sentence
            assert trouble.advice


def test_reports_about_forms_are_listed_with_what_to_choose() -> None:
    listed = findings(host())
    for trouble in form_troubles():
        finding = listed[str(trouble.condition)]
        assert (finding.status, finding.what) == ("info", trouble.sentence)
        assert finding.advice == trouble.advice
    page = (Path(__file__).parents[1] / "docs" / "validation.md").read_text(encoding="utf-8")
    assert all(trouble.link in page for trouble in form_troubles())


def test_path_beyond_ascii_is_noted_also_where_only_the_working_folder_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "modèles").mkdir()
    (trouble,) = form_troubles([NOT_ASCII])
    assert path_note(tmp_path / "m.mlmodelc") is None
    for path in (tmp_path / "modèles" / "m.mlmodelc", tmp_path / "é.mlmodelc"):
        assert trouble.sentence in (path_note(path) or "")
    monkeypatch.chdir(tmp_path / "modèles")
    assert trouble.sentence in (path_note(Path("m.mlmodelc")) or "")


def test_versions_are_read_up_to_their_first_letter() -> None:
    assert parse_version("2.13.0+cpu") == (2, 13, 0)
    assert parse_version("9.1b1") == (9, 1)
    assert parse_version("unknown") == ()


def test_facts_of_this_machine_can_be_had() -> None:
    machine = this_host()
    assert machine.memory is None or machine.memory > 1 << 28
    assert machine.version("click")
    assert machine.version("no-such-distribution") is None
    assert machine.files("no-such-distribution") == []
    assert machine.free(Path("not/made/yet")) == pytest.approx(free_bytes(Path()), rel=0.2)


def test_missing_program_gives_no_answer() -> None:
    assert ask(["no-such-program-anywhere"]) is None
    assert ask(["sh", "-c", "echo out; echo err >&2; exit 3"]) == Answer(3, "out", "err")


def test_chip_and_build_of_a_mac_are_its_kernel_s() -> None:
    asked: list[list[str]] = []

    def run(command: Sequence[str]) -> Answer:
        asked.append(list(command))
        return Answer(0, {"machdep.cpu.brand_string": "Apple M4", "kern.osversion": "24F74"}[
            command[-1]], "")  # fmt: skip

    machine = replace(mac(), run=run)
    assert (chip(machine), os_build(machine)) == ("Apple M4", "24F74")
    assert [command[:2] for command in asked] == [["sysctl", "-n"]] * 2
    for answer in (None, Answer(1, "", "unknown oid"), Answer(0, "", "")):
        silent = replace(mac(), run=lambda _, answer=answer: answer)
        assert (chip(silent), os_build(silent)) == (None, None)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("processor\t: 0\nmodel name\t: Abacus 9000 @ 1 Hz\nflags: x\n", "Abacus 9000 @ 1 Hz"),
        ("processor\t: 0\nBogoMIPS: 2\n", None),  # as ARM kernels have it
        (None, None),
    ],
)
def test_chip_off_a_mac_is_what_linux_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, expected: str | None
) -> None:
    file = tmp_path / "cpuinfo"
    if text is not None:
        file.write_text(text)
    monkeypatch.setattr("fluxvae.device.host._CPU_INFO", file)
    assert chip(host()) == expected
    assert os_build(host()) == "6.1"
