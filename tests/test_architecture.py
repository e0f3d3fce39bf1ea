"""The tree and its arrows: which folder may import which. ``python -m tests.test_architecture``
prints the arrows.

Every import counts, those inside functions too: they are late for speed, not to hide a circle.
"""

import ast
import graphlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LAYERS = (
    {"cli", "hubconf"},
    {"benchmark"},  # benchmark/__init__.py, the front door
    {"benchmark.commands"},
    {"benchmark.report", "benchmark.sweep"},
    {"benchmark.run", "benchmark.wiring", "benchmark.doctor"},
    {"benchmark.speed"},
    {"benchmark.data", "benchmark.export", "benchmark.predict"},
    {"benchmark.training", "benchmark.scoring", "benchmark.leaderboard"},
    {"benchmark.results"},
    {"benchmark.experiment"},
    {"models", "tasks", "datasets"},
    {"common"},
)
"""From the top down: a folder imports from layers below its own, never from its own or above."""
LEVEL = {folder: level for level, folders in enumerate(LAYERS) for folder in folders}
MOST_FILES, MOST_FOLDERS, MOST_LINES = 13, 15, 80


def sources() -> dict[str, Path]:
    """Every module of the product, by its dotted name."""
    paths = [ROOT / "cli.py", ROOT / "hubconf.py"]
    for package in ("benchmark", "models", "tasks", "datasets", "common"):
        paths += (ROOT / package).rglob("*.py")
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in paths
    }


def imports(path: Path, modules: dict[str, Path]) -> Iterator[str]:
    """The product's modules that ``path`` imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in modules else str(node.module) for name in inner]
        else:
            continue
        yield from (name for name in names if name in modules)


def folder_of(module: str) -> str:
    parts = module.split(".")
    return ".".join(parts[: 2 if parts[0] == "benchmark" else 1])


def arrows() -> dict[tuple[str, str], set[str]]:
    """The modules that import, by (folder that imports, folder imported)."""
    modules = sources()
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    for module, path in modules.items():
        for imported in imports(path, modules):
            if (pair := (folder_of(module), folder_of(imported)))[0] != pair[1]:
                found[pair].add(f"{module} -> {imported}")
    return found


def test_every_folder_has_a_layer() -> None:
    assert {folder_of(module) for module in sources()} == set(LEVEL)


def test_arrows_run_downwards_only() -> None:
    upwards = {p: sorted(who) for p, who in arrows().items() if LEVEL[p[0]] >= LEVEL[p[1]]}
    assert upwards == {}


def test_modules_import_each_other_in_no_circle() -> None:
    modules = sources()
    graph = {module: set(imports(path, modules)) - {module} for module, path in modules.items()}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(modules)


def test_benchmark_is_folders_named_by_capability() -> None:
    inside = [p for p in (ROOT / "benchmark").iterdir() if p.name != "__pycache__"]
    assert [p.name for p in inside if p.is_file()] == ["__init__.py"]
    assert len(inside) - 1 <= MOST_FOLDERS
    for folder in (ROOT / "benchmark").rglob("*/"):
        files = [p for p in folder.glob("*.py") if p.name != "__init__.py"]
        assert len(files) <= MOST_FILES, f"{folder}: {len(files)} files"


@pytest.mark.parametrize("package", ["cli.py", "hubconf.py", "benchmark", "models", "tasks",
                                     "datasets", "common"])  # fmt: skip
def test_functions_are_short(package: str) -> None:
    top = ROOT / package
    long = {}
    for path in [top] if top.is_file() else top.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                if lines > MOST_LINES:
                    long[f"{path.relative_to(ROOT)}: {node.name}"] = lines
    assert long == {}


if __name__ == "__main__":
    found = arrows()
    for (source, target), who in sorted(found.items(), key=lambda item: LEVEL[item[0][0]]):
        print(f"{source} -> {target} ({len(who)})")  # noqa: T201
    upwards = sum(LEVEL[a] >= LEVEL[b] for a, b in found)
    print(f"{len(found)} arrows between folders, {upwards} upwards")  # noqa: T201
