"""Compiling, against stand-ins for Xcode's tools. Real compilers run on Macs only."""

from pathlib import Path

import pytest

from fluxvae.cli.options import compiler_option
from fluxvae.device.compile import (
    COMPILERS,
    NOT_SHOWN,
    compile_model,
    compiled_path,
    find_compilers,
)
from fluxvae.errors import ArtifactError, OutputError, ToolError
from tests.fake_xcode import COMPLETE, HALF, REFUSE, install, make_network, make_package
from tests.packages import WEIGHTS, copy_of


def entries(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_xcrun_compiles_to_a_stable_path_without_nesting(tools: Path, tmp_path: Path) -> None:
    install(tools, "xcrun", COMPLETE, finds="coremlcompiler")
    package = make_package(tmp_path / "out")
    made = compile_model(package)
    assert made == tmp_path / "out" / "decoder_v1.0.mlmodelc"
    assert entries(made) == ["analytics", "coremldata.bin", "model.mil"]
    assert entries(made.parent) == ["decoder_v1.0.mlmodelc", "decoder_v1.0.mlpackage"]


def test_coremlc_on_path_is_used_where_xcrun_finds_nothing(tools: Path, tmp_path: Path) -> None:
    install(tools, "xcrun", REFUSE, finds="neither")
    coremlc = install(tools, "coremlc", COMPLETE)
    made = compile_model(make_package(tmp_path / "out"))
    assert (made / "model.mil").read_text().startswith(f"{coremlc} compile ")


def test_coremlc_is_tried_when_xcruns_compiler_fails(tools: Path, tmp_path: Path) -> None:
    install(tools, "xcrun", REFUSE, finds="coremlcompiler")
    coremlc = install(tools, "coremlc", COMPLETE)
    made = compile_model(make_package(tmp_path / "out"))
    assert (made / "model.mil").read_text().startswith(f"{coremlc} compile ")


def test_an_xcode_that_is_not_selected_is_found(tools: Path, tmp_path: Path) -> None:
    inside = tmp_path / "Applications" / "Xcode-beta.app" / "Contents" / "Developer" / "usr" / "bin"
    inside.mkdir(parents=True)
    tool = install(inside, "coremlcompiler", COMPLETE)
    (found,) = find_compilers(xcode_folder=tmp_path / "Applications")
    assert found.command == (str(tool), "compile")
    assert compile_model(make_package(tmp_path / "out"), compilers=[found]).is_dir()


def test_failing_compiler_is_named_with_exit_code_and_its_error_line(
    tools: Path, tmp_path: Path
) -> None:
    install(tools, "xcrun", REFUSE, finds="coremlcompiler")
    package = make_package(tmp_path / "out")
    with pytest.raises(ArtifactError) as caught:
        compile_model(package)
    message = str(caught.value)
    assert "xcrun coremlcompiler failed with exit code 1: coremlc: error: Error reading" in message
    assert "reading the model" not in message
    assert entries(package.parent) == [package.name]


def test_success_without_a_complete_bundle_is_a_failure(tools: Path, tmp_path: Path) -> None:
    install(tools, "xcrun", HALF, finds="coremlcompiler")
    package = make_package(tmp_path / "out")
    with pytest.raises(ArtifactError, match=r"left no complete \.mlmodelc"):
        compile_model(package)
    assert entries(package.parent) == [package.name]


def test_compiler_ended_by_a_signal_says_which(tools: Path, tmp_path: Path) -> None:
    install(tools, "coremlc", "kill -9 $$\n")
    with pytest.raises(ArtifactError, match="ended by signal 9"):
        compile_model(make_package(tmp_path / "out"))


def test_compiler_that_cannot_start_says_so(tools: Path, tmp_path: Path) -> None:
    (tools / "coremlc").write_text("#!/nowhere/interpreter\n")
    (tools / "coremlc").chmod(0o755)
    with pytest.raises(ArtifactError, match="cannot be started"):
        compile_model(make_package(tmp_path / "out"))


def test_missing_compiler_says_exactly_what_is_needed(tmp_path: Path) -> None:
    package = make_package(tmp_path / "out")
    with pytest.raises(ToolError) as caught:
        compile_model(package, compilers=[], compiler="xcode")
    message = str(caught.value)
    assert "full Xcode" in message
    assert "Command Line Tools alone" in message
    assert "xcode-select -s /Applications/Xcode.app/Contents/Developer" in message
    assert "work without compiling" in message
    assert entries(package.parent) == [package.name]


def test_machine_without_xcode_has_no_compiler(tools: Path, tmp_path: Path) -> None:
    assert find_compilers(xcode_folder=tmp_path) == []


def package_with_old_output(folder: Path) -> tuple[Path, Path]:
    package = make_package(folder / "out")
    target = package.with_suffix(".mlmodelc")
    target.mkdir()
    (target / "mine").write_text("old")
    return package, target


def test_existing_output_is_kept_unless_overwriting(tools: Path, tmp_path: Path) -> None:
    install(tools, "coremlc", COMPLETE)
    package, target = package_with_old_output(tmp_path)
    with pytest.raises(OutputError, match="exists already: pass --overwrite"):
        compile_model(package)
    assert entries(target) == ["mine"]
    assert compile_model(package, overwrite=True) == target
    assert entries(target) == ["analytics", "coremldata.bin", "model.mil"]
    assert entries(package.parent) == [target.name, package.name]


def test_failed_overwrite_keeps_the_old_one(tools: Path, tmp_path: Path) -> None:
    install(tools, "coremlc", REFUSE)
    package, target = package_with_old_output(tmp_path)
    with pytest.raises(ArtifactError):
        compile_model(package, overwrite=True)
    assert entries(target) == ["mine"]


def test_interruption_leaves_nothing(tmp_path: Path) -> None:
    package = make_package(tmp_path / "out")
    seen = []

    def interrupted(command: list[str], **_: object) -> None:
        half = Path(command[-1]) / "decoder_v1.0.mlmodelc"
        half.mkdir()
        seen.append(half)
        raise KeyboardInterrupt

    (compiler,) = find_compilers(
        runner=interrupted, which={"coremlc": "/usr/bin/coremlc"}.get, xcode_folder=tmp_path
    )
    with pytest.raises(KeyboardInterrupt):
        compile_model(package, runner=interrupted, compilers=[compiler])
    assert len(seen) == 1
    assert entries(package.parent) == [package.name]


def test_output_may_be_a_bundle_or_a_folder() -> None:
    package = Path("a/b.mlpackage")
    assert compiled_path(package) == Path("a/b.mlmodelc")
    assert compiled_path(package, Path("c/d.mlmodelc")) == Path("c/d.mlmodelc")
    assert compiled_path(package, Path("c")) == Path("c/b.mlmodelc")


def test_neural_network_files_compile_too(tools: Path, tmp_path: Path) -> None:
    install(tools, "coremlc", COMPLETE)
    model = make_network(tmp_path / "net.mlmodel")
    assert compile_model(model, tmp_path / "new" / "folder").name == "net.mlmodelc"


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("absent.mlpackage", None, "does not exist"),
        ("made.mlmodelc", "folder", "is compiled already"),
        ("weights.safetensors", "file", "neither an .mlpackage folder nor an .mlmodel file"),
        ("cut.mlpackage", "file", "neither an .mlpackage folder nor an .mlmodel file"),
    ],
)
def test_what_is_no_saved_model_is_refused(
    tmp_path: Path, name: str, kind: str | None, message: str
) -> None:
    path = tmp_path / name
    if kind == "folder":
        path.mkdir()
    elif kind == "file":
        path.write_bytes(b"x")
    with pytest.raises(ArtifactError, match=message):
        compile_model(path, compilers=[])


@pytest.mark.parametrize("compiler", ["auto", "portable"])
def test_damaged_package_is_refused_before_any_compiler_and_any_folder(
    tools: Path, demo_package: Path, tmp_path: Path, compiler: str
) -> None:
    install(tools, "coremlc", COMPLETE)
    package = copy_of(demo_package, tmp_path)
    (package / WEIGHTS).write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"mlpackage/Data/.*/weights/weight\.bin is empty"):
        compile_model(package, tmp_path / "new" / "folder", compiler=compiler)
    assert not (tmp_path / "new").exists()


def test_command_line_offers_every_compiler() -> None:
    @compiler_option
    def command() -> None: ...

    (option,) = command.__click_params__  # type: ignore[attr-defined]
    assert tuple(option.type.choices) == COMPILERS


def test_auto_prefers_apples_compiler(tools: Path, demo_package: Path, tmp_path: Path) -> None:
    coremlc = install(tools, "coremlc", COMPLETE)
    lines: list[str] = []
    made = compile_model(demo_package, tmp_path, report=lines.append)
    assert (made / "model.mil").read_text().startswith(f"{coremlc} compile ")
    assert lines == []


def test_a_refusal_of_apples_compiler_is_not_papered_over(
    tools: Path, demo_package: Path, tmp_path: Path
) -> None:
    install(tools, "coremlc", REFUSE)
    with pytest.raises(ArtifactError, match="failed with exit code 1"):
        compile_model(demo_package, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_auto_is_portable_without_apples_compiler(demo_package: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    made = compile_model(demo_package, tmp_path, compilers=[], report=lines.append)
    assert lines[0] == NOT_SHOWN
    assert "real Mac" in lines[0]
    assert lines[1:]
    assert all(line.startswith("note: in metadata.json the versions") for line in lines[1:])
    assert entries(made) == [
        "analytics",
        "coremldata.bin",
        "metadata.json",
        "model.mil",
        "weights",
    ]
    assert entries(tmp_path) == [made.name]


def test_portable_is_used_when_asked_for(tools: Path, demo_package: Path, tmp_path: Path) -> None:
    install(tools, "coremlc", COMPLETE)
    made = compile_model(demo_package, tmp_path, compiler="portable")
    assert (made / "model.mil").read_text().startswith("program(1.")


@pytest.mark.parametrize("compiler", ["auto", "xcode"])
def test_single_files_need_apples_compiler(tmp_path: Path, compiler: str) -> None:
    model = make_network(tmp_path / "net.mlmodel")
    with pytest.raises(ToolError, match="full Xcode"):
        compile_model(model, compilers=[], compiler=compiler)


def test_failed_portable_compilation_leaves_what_was_there(tmp_path: Path) -> None:
    package, target = package_with_old_output(tmp_path)
    with pytest.raises(ArtifactError, match="portable compiler takes ML Programs"):
        compile_model(package, compiler="portable", overwrite=True)
    assert entries(target) == ["mine"]
    assert entries(package.parent) == [target.name, package.name]
