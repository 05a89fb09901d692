"""Which folder may import which: see ``experiments/import_graph.py``."""

from __future__ import annotations

import pytest

from experiments.import_graph import FOLDERS, HEAVY, PURE, ROOT, circle, folder, imports, purpose, upward

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
