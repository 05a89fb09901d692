from __future__ import annotations

from dataclasses import replace

from qd.report.reproduction import document
from qd.report.reproduction.document import write_document
from qd.report.reproduction.plan import ReproductionConfig, RunConfig
from tests.report.reproduction.conftest import PAPER


def test_the_page_is_written_from_results(world, tmp_path, monkeypatch):
    plan = ReproductionConfig(folder=str(tmp_path), runs=[RunConfig("beta0"), RunConfig("beta15", 15.0)])
    world.fill(PAPER)
    picture = tmp_path / "report" / "figure-3.png"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(b"picture")
    (tmp_path / "beta0" / "step-002000").mkdir(parents=True)
    page = write_document(
        plan, tmp_path / "docs" / "reproduction.md", "mine", {"again": replace(plan, notes="Once more.")}
    )
    text = page.read_text(encoding="utf-8")
    assert (
        '`make reproduce CONFIG=mine ARGS="--only document --compare again"`' in text
        and "| claim | mine | again |" in text
    )
    assert "](reproduction/figure-3.png)\n\n*Figure 3. Quality and diversity of every strategy. Curves " in text
    assert (page.parent / "reproduction" / "figure-3.png").read_bytes() == b"picture"
    assert "| beta0 | 0 | 0 | 2000 |" not in text  # no run has its log
    rows = [line.split(" | ")[:2] for line in text.splitlines() if line.startswith("| beta15 | ")]
    assert rows == 2 * [["| beta15", "0"], ["| beta15", "1"]]  # for each attempt
    monkeypatch.setattr(document, "step_seconds", lambda run: 1.5)
    timed = write_document(plan, page).read_text(encoding="utf-8")
    assert "| beta0 | 0 | 0 | 2000 | 1.50 | 50 |" in timed and "| beta15 (to do) | 15 | 0 | 2000 |  |  |" in timed
    assert "### Compared with: again\n\n```\nmake reproduce CONFIG=again\n```\n\nOnce more.\n\n## Time" in text
