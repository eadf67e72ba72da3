"""Inside a package arrows go down only, too: from a room to those before it in the list, and never in a circle."""

import ast
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from contracts import layout

# From the ground floor up. "" are the modules that lie in the package itself, above and below its rooms.
ROOMS = {
    "cli": ("installing",),
    "export": ("graphs", "scaffold", "proof", "source", "precision", "report", "release", "registry", "published"),
    "training": ("families", "runs", "sweep", "estimators", "data", "features", "lightning"),
    "deploy": (
        "installed",
        "devices",
        "neighbours",
        "triton",
        "layers",
        "served",
        "proving",
        "running",
        "keeping",
        "versions",
        "drill",
    ),
    "benchmarks": (
        "calling",
        "serving",
        "releases",
        "speed",
        "scenarios",
        "tuning",
        "peers",
        "gateway",
        "growth",
        "reporting",
        "gpu_day",
        "command_line",
    ),
    "clients": ("core", "transports", "filling", "command_line"),
    "store": ("migrations", "payloads", "writing", "keeping", "command_line"),
    "gateway": ("settings", "seen", "triton", "access", "brain", "raw", "authorize", "typed", "page", "running"),
}
PACKAGES = ("cli", "contracts", "training", "export", "deploy", "clients", "store", "gateway", "benchmarks")
MOST_MODULES = 12  # of a folder: more have rooms with names


def modules(package: str) -> dict[str, Path]:
    """{dotted name: file}, without what runs inside Triton."""
    backends = layout.ROOT / "deploy" / "backends"
    found = [path for path in (layout.ROOT / package).rglob("*.py") if backends not in path.parents]
    return {
        ".".join(path.relative_to(layout.ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in found
    }


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of `known` that a file imports when it is loaded or later, not those for type checkers alone."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names & known.keys() or {node.module} & known.keys()
    return found


@pytest.mark.parametrize("package", PACKAGES)
def test_no_module_imports_itself_by_way_of_others(package: str) -> None:
    known = modules(package)
    assert known
    try:
        TopologicalSorter({name: imports(path, known) - {name} for name, path in known.items()}).prepare()
    except CycleError as error:
        pytest.fail(f"a circle: {' → '.join(error.args[1])}")


@pytest.mark.parametrize("package", ROOMS)
def test_a_room_imports_only_rooms_below_it(package: str) -> None:
    known, order = modules(package), ROOMS[package]

    def room(name: str) -> str:
        parts = name.split(".")
        return parts[1] if len(parts) > 2 or (layout.ROOT / package / parts[-1] / "__init__.py").exists() else ""

    assert {room(name) for name in known} - {""} == set(order), "a room that is not in the list"
    for name, path in known.items():
        for other in imports(path, known):
            if room(name) and room(other) and room(name) != room(other):
                assert order.index(room(other)) < order.index(room(name)), f"{name} imports {other}"


def test_a_folder_has_no_more_modules_than_a_reader_looks_through() -> None:
    counts = Counter(
        path.parent for package in PACKAGES for path in modules(package).values() if path.stem != "__init__"
    )
    crowded = {str(folder.relative_to(layout.ROOT)): count for folder, count in counts.items() if count > MOST_MODULES}
    assert not crowded
