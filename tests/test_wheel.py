"""What an installed fluxvae has: the Swift sources that the harness is built from."""

import importlib.util
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from fluxvae.device.swift import source_files

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this checkout, built without a network."""
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("hatchling, which builds the wheel, is not installed in this environment")
    if importlib.util.find_spec("pip") is None:
        pytest.skip("pip is not installed in this environment")
    # a clean copy: no build folder of this checkout can leak in, nor anything be left in it
    copy = tmp_path_factory.mktemp("checkout") / "fluxvae"
    ignored = shutil.ignore_patterns(
        ".git", ".venv", ".build", "coreml_out", "__pycache__", ".*_cache"
    )
    shutil.copytree(ROOT, copy, ignore=ignored)
    (copy / "swift" / ".build").mkdir()
    (copy / "swift" / ".build" / "junk.o").write_text("not to be shipped")
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps"),
            *("--no-index", "--quiet", "--wheel-dir", str(out), str(copy)),
        ],
        check=True,
        capture_output=True,
        text=True,
    )
    (made,) = out.glob("*.whl")
    return made


@pytest.mark.slow
def test_wheel_brings_the_swift_sources_and_nothing_built(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        prefix = "fluxvae/swift_sources/"
        shipped = {n.removeprefix(prefix): archive.read(n) for n in names if n.startswith(prefix)}
    wanted = {p.as_posix(): (ROOT / "swift" / p).read_bytes() for p in source_files(ROOT / "swift")}
    assert "Package.swift" in wanted
    assert len(wanted) > 50
    assert shipped == wanted
    assert "fluxvae/mil/serve.py" in names  # which the Swift side starts
    assert "fluxvae/experiments/template.toml" in names
    assert not any(n.startswith(("tests/", "swift/")) for n in names)


@pytest.mark.slow
def test_installed_package_finds_its_sources(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = "from fluxvae.device.swift import packaged_sources; print(packaged_sources())"
    ran = subprocess.run(
        [sys.executable, "-P", "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
    )
    assert ran.stdout.strip() == str(tmp_path / "fluxvae" / "swift_sources")
