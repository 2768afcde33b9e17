"""Imports run one way: training, evaluation and pages stand on the rest, and scripts on these."""

import ast
from collections.abc import Iterator
from pathlib import Path

import factorvae

PACKAGE = Path(factorvae.__file__).parent
TOP = {"training", "evaluation", "pages"}
APART = {"datasets", "metrics", "plots", "objective"}  # none imports another


def imports_of(path: Path) -> Iterator[str]:
    """The parts of the package that a file imports: 'plots' for factorvae.plots.style."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports by dots"
            whole = node.module == "factorvae"
            names = [f"factorvae.{alias.name}" for alias in node.names] if whole else [node.module]
        yield from (name.split(".")[1] for name in names if name.startswith("factorvae."))


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_imports_run_one_way():
    edges = {(part_of(path), to) for path in PACKAGE.rglob("*.py") for to in imports_of(path)}
    edges = {(part, to) for part, to in edges if part not in (to, "__init__")}
    assert ("training", "objective") in edges and ("pages", "plots") in edges
    assert not {(part, to) for part, to in edges if to in TOP}
    assert not {(part, to) for part, to in edges if {part, to} <= APART}

    left = edges  # a part that imports none of those left stands below them
    while left:
        parts = {part for part, _ in left}
        below = {(part, to) for part, to in left if to not in parts}
        assert below, f"a circle among {sorted(parts)}"
        left = left - below


def test_no_script_imports_a_script():
    scripts = {"train", "evaluate", "visualize"}
    for name in scripts:
        tree = ast.parse((PACKAGE.parent / f"{name}.py").read_text())
        nodes = [n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom)]
        modules = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
        modules |= {a.name for node in nodes if isinstance(node, ast.Import) for a in node.names}
        assert modules and not modules & scripts
