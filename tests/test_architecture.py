"""Which folder may import which: see ``experiments/import_graph.py``."""

from __future__ import annotations

import pytest

from experiments.import_graph import (
    FILE_LINES,
    FOLDERS,
    FUNCTION_LINES,
    HEAVY,
    PURE,
    ROOT,
    circle,
    folder,
    imports,
    purpose,
    too_long,
    upward,
)

GRAPH = imports(ROOT / "qd")


def test_the_list_names_every_folder():
    assert {folder(module) for module in GRAPH} - {""} == set(FOLDERS)
    loose = {path.name for path in (ROOT / "qd").glob("*.py")}
    assert loose == {"__init__.py", "__main__.py"} and sum("/" not in path for path in FOLDERS) <= 16


def test_imports_point_downwards_and_form_no_circle():
    graph = {module: targets for module, targets in GRAPH.items() if folder(module)}
    assert upward(graph) == [] and circle(GRAPH) == []


def test_an_upward_import_and_a_circle_are_found():
    graph = GRAPH | {"qd.audio.mel": {"qd.models.musicgen"}, "qd.models.musicgen": {"qd.audio.mel"}}
    assert "qd.audio.mel -> qd.models.musicgen" in upward(graph)
    assert set(circle(graph)) == {"qd.audio.mel", "qd.models.musicgen"}


@pytest.mark.parametrize("module", [module for module in GRAPH if folder(module) in PURE])
def test_pure_folders_import_no_heavy_library(module):
    below = FOLDERS[FOLDERS.index(PURE[0]) :] + PURE
    for target in GRAPH[module]:
        assert target.split(".")[0] not in HEAVY
        assert not target.startswith("qd.") or folder(target) in below


def test_the_map_in_the_docs_is_that_of_the_docstrings():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert [path for path in FOLDERS if f"`qd/{path}/`: {purpose(path)}" not in text] == []


def test_no_function_and_no_file_is_too_long():
    files = [file for top in ("qd", "experiments", "tests") for file in (ROOT / top).rglob("*.py")]
    assert len(files) > 300
    assert [line for file in files for line in too_long(str(file), file.read_text(encoding="utf-8"))] == []


def test_a_long_function_and_a_long_file_are_found():
    body = "    x = 0\n" * (FUNCTION_LINES - 1)
    docstring = '    """First line.\n\n    Last line.\n    """\n'
    assert too_long("a.py", f"def fits():\n{docstring}{body}") == []
    source = f"def outer():\n    async def long():\n{body.replace('    x', '        x')}        y = 0\n"
    outer, long = (f"a.py: {name}: {FUNCTION_LINES + more} lines" for name, more in (("outer", 2), ("long", 1)))
    assert too_long("a.py", source) == [outer, long]
    assert too_long("a.py", "x = 0\n" * FILE_LINES) == []
    assert too_long("a.py", "x = 0\n" * (FILE_LINES + 1)) == [f"a.py: {FILE_LINES + 1} lines"]
