"""Prints the folders of ``qd/``, the import circles among its files, and the imports that point upwards.

python experiments/import_graph.py

A folder may import from the folders below it in ``FOLDERS``, and from no other one. ``tests/test_architecture.py``
checks this,
and that no function and no file is too long.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

FOLDERS = (
    "cli", "commands", "builtin", "callbacks", "report/reproduction", "report", "report/cards", "evaluation",
    "evaluation/embedder", "modules/budget", "modules", "config", "scorers", "models/sampling", "models/merging",
    "models", "models/embedders", "models/codecs", "models/checkpoints", "data", "data/world2",
    "data/world", "runs", "metrics", "objectives", "audio", "schema",
)  # fmt: skip
"""In the order of the layers: a folder may import only from later folders."""

PURE = ("objectives", "metrics")
"""Folders whose code must also work without the libraries in :data:`HEAVY`."""

HEAVY = ("lightning", "transformers")

FUNCTION_LINES, FILE_LINES = 45, 260
"""Most lines of a function, without its docstring, and of a file."""


def imports(package: Path) -> dict[str, set[str]]:
    """The modules that each module of a package imports, by dotted names; imports inside functions count too."""
    files = {".".join(file.relative_to(package.parent).with_suffix("").parts): file for file in package.rglob("*.py")}
    return {name: set(_imported(ast.parse(file.read_text(encoding="utf-8")), files)) for name, file in files.items()}


def _imported(tree: ast.Module, files: Mapping[str, Path]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            members = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (member if member in files else node.module for member in members)


def folder(module: str) -> str:
    """The folder of a module of ``qd``: ``qd.models.sampling.sampler`` → ``models/sampling``."""
    return "/".join(module.split(".")[1:-1])


def upward(graph: Mapping[str, set[str]]) -> list[str]:
    """Imports of a folder that is not below the importing one, as ``importer -> imported``."""
    ranks = {name: rank for rank, name in enumerate(FOLDERS)}
    return [
        f"{module} -> {target}"
        for module, targets in sorted(graph.items())
        for target in sorted(targets & graph.keys())
        if folder(target) != folder(module) and ranks.get(folder(target), -1) <= ranks.get(folder(module), -1)
    ]


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """The modules of an import circle, the first one again at the end; empty if there is none."""
    try:
        TopologicalSorter({name: targets & graph.keys() for name, targets in graph.items()}).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def too_long(file: str, source: str) -> list[str]:
    """The file and its functions that have too many lines, each with its number of lines.

    The docstring of a function does not count.
    """
    lines = len(source.splitlines())
    problems = [f"{file}: {lines} lines"] if lines > FILE_LINES else []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = _lines(node) - (_lines(node.body[0]) if ast.get_docstring(node) is not None else 0)
            problems += [f"{file}: {node.name}: {lines} lines"] if lines > FUNCTION_LINES else []
    return problems


def _lines(node: ast.stmt) -> int:
    return node.end_lineno - node.lineno + 1


def purpose(path: str) -> str:
    """The docstring of a folder's ``__init__.py``: one line."""
    return ast.get_docstring(ast.parse((ROOT / "qd" / path / "__init__.py").read_text(encoding="utf-8")))


def main() -> None:
    graph = imports(ROOT / "qd")
    for path in FOLDERS:
        print(f"- `qd/{path}/`: {purpose(path)}")
    arrows = {(folder(a), folder(b)) for a, targets in graph.items() for b in targets & graph.keys()}
    print(f"folders: {len(FOLDERS)}, of them directly in qd/: {sum('/' not in path for path in FOLDERS)}")
    print(f"arrows between folders: {sum(a != b for a, b in arrows)}")
    print(f"circles: {' -> '.join(circle(graph)) or 0}")
    print(f"upward arrows: {', '.join(upward(graph)) or 0}")


if __name__ == "__main__":
    main()
