"""The package's rooms: what lies at its root, and that no files import each other in a circle."""

import ast
from pathlib import Path

import fluxvae

ROOT = Path(fluxvae.__file__).parent


def module_of(file: Path) -> str:
    parts = ("fluxvae", *file.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(file: Path, modules: set[str]) -> set[str]:
    """Modules of the package that a file names in an import, inside functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            deeper = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= deeper & modules
            if deeper - modules:  # names that the module itself defines
                names.add(node.module)
    return (names & modules) - {module_of(file)}


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Sets of modules each of which reaches all others of its set."""
    reached: dict[str, set[str]] = {}
    for start in graph:
        seen: set[str] = set()
        rest = list(graph[start])
        while rest:
            name = rest.pop()
            if name not in seen:
                seen.add(name)
                rest += graph[name]
        reached[start] = seen
    found = [{b for b in seen if a in reached[b]} for a, seen in reached.items() if a in seen]
    return [circle for i, circle in enumerate(found) if circle not in found[:i]]


def test_no_files_import_each_other_in_a_circle() -> None:
    files = {module_of(file): file for file in ROOT.rglob("*.py")}
    graph = {name: imported(file, set(files)) for name, file in files.items()}
    assert circles(graph) == []


def test_circles_are_found_where_there_are_some() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set(), "e": {"d"}}
    assert circles(graph) == [{"a", "b", "c"}]


def test_root_holds_five_small_modules_and_one_former_name() -> None:
    found = {file.stem for file in ROOT.glob("*.py")}
    assert found == {"__init__", "__main__", "errors", "files", "schema", "weights"}
