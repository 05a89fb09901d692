"""Figures and tables of good clips and of musical facets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from qd.commands.report import write_report
from qd.evaluation.columns import CLEAN, EFFECTIVE, FACETS
from qd.evaluation.results import NotMeasuredError, Results
from qd.report.data import ReportData
from qd.report.figures import FIGURES
from qd.report.tables import TABLES

NEW = ("effective-diversity", "facets", "good-clips", "facet-values")


def values(scale: float, names: tuple[str, ...] = CLEAN + EFFECTIVE + FACETS) -> dict[str, float]:
    return {name: scale * (1 + index) / 10 for index, name in enumerate(names)}


@pytest.fixture
def file(synthetic) -> Path:
    """Two models with all optional metrics, and one that an earlier version measured."""
    synthetic.add("betas", "base", 0.0, 0.6, optional=values(1.0))
    synthetic.add("betas", "runs/beta0", 1.0, 0.3, beta=0.0, optional=values(0.5))
    synthetic.add("betas", "runs/beta15", 1.0, 0.4, beta=15.0)
    return synthetic.results.points.path


def drawn(figure: Figure) -> list[list[float]]:
    """The means in each panel, series by series."""
    return [[x for line in axes.containers for x in line.lines[0].get_xdata()] for axes in figure.axes]


def test_the_figures_show_the_models_that_have_the_metrics(file: Path, tmp_path: Path) -> None:
    data = ReportData(file)
    clean = drawn(FIGURES["effective-diversity"].draw(data, []))
    np.testing.assert_allclose(clean, [[0.6, 0.3, 0.59, 0.29], [0.3, 0.15, 0.4, 0.2], [0.7, 0.35, 0.8, 0.4]])
    spreads = drawn(FIGURES["facets"].draw(data, []))
    np.testing.assert_allclose(spreads, [[1.3, 0.65], [1.4, 0.7], [1.5, 0.75], [1.6, 0.8], [1.7, 0.85]])
    left_out = write_report(file, tmp_path / "report", only=NEW)
    assert not left_out
    for name in NEW[:2]:
        assert np.asarray(Image.open(tmp_path / "report" / f"{name}.png").convert("L")).std() > 5


def test_the_tables_have_the_known_values(file: Path) -> None:
    data = ReportData(file)
    table = TABLES["good-clips"].make(data)
    rows = {row[0]: dict(zip(table.header, row, strict=True)) for row in table.rows}
    assert set(rows) == {"base", "β = 0"}
    assert rows["base"]["clean: clips"] == "10 %" and rows["base"]["clean: prompts left out"] == "2.4"  # of 12
    assert rows["base"]["effective: diversity"].startswith("0.70 [")
    table = TABLES["facet-values"].make(data)
    rows = {row[0]: dict(zip(table.header, row, strict=True)) for row in table.rows}
    assert rows["β = 0"]["mean tempo, beats a minute"] == "0.45"
    assert rows["β = 0"]["chroma spread, 1 − cos"].startswith("0.70 [")


def test_prompts_that_one_seed_leaves_out_count_by_the_other(synthetic) -> None:
    for seed, clean in ((0, 0.2), (1, 0.4)):
        point = synthetic.add("betas", "base", 0.0, 0.6, seed=seed, optional=values(1.0) | {"diversity_clean": clean})
        results = Results(synthetic.results.points.path)
        saved = results.recall(point.key)
        saved.per_prompt["diversity_clean"][: 1 + seed] = np.nan
        results.save(point.key, saved)
    synthetic.add("betas", "runs/beta0", 1.0, 0.3, beta=0.0)
    (base, _) = ReportData(synthetic.results.points.path).series("betas")
    per_prompt = base.per_prompt["diversity_clean"] - synthetic.offsets
    assert np.isnan(per_prompt[0])
    np.testing.assert_allclose(per_prompt[1:], [0.2] + [0.3] * 10)
    assert base.metrics["diversity_clean"].mean == pytest.approx(np.mean(base.per_prompt["diversity_clean"][1:]))


def test_an_undefined_diversity_is_a_dash(synthetic) -> None:
    undefined = {"diversity_effective": np.nan, "diversity_effective_heldout": np.nan, "effective_left_out": 1.0}
    for model, beta in (("base", None), ("runs/beta0", 0.0)):
        synthetic.add("betas", model, 0.0, 0.6, beta=beta, optional=values(1.0) | undefined)
    data = ReportData(synthetic.results.points.path)
    assert [row[-2:] for row in TABLES["good-clips"].make(data).rows] == [["—", "—"]] * 2
    FIGURES["effective-diversity"].draw(data, [])


def test_points_without_the_metrics_say_how_to_measure_them(synthetic) -> None:
    for model, beta in (("base", None), ("runs/beta0", 0.0)):
        synthetic.add("betas", model, 0.0, 0.6, beta=beta)
    data = ReportData(synthetic.results.points.path)
    with pytest.raises(NotMeasuredError, match="tempo.*facets=true"):
        FIGURES["facets"].draw(data, [])
    with pytest.raises(NotMeasuredError, match="clean_share.*facets=true"):
        TABLES["good-clips"].make(data)
