from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from qd.evaluation.figures import MAX_SIBLINGS, Landmarks, pareto_figure, sibling_trajectories
from qd.evaluation.points import PointsFile


@pytest.fixture
def landmarks(at):
    cfg = at(0, 1.2, 0.3, run="base", beta=None, guidance_scale=3.0, negative="Bad audio quality.")
    return Landmarks(at(0, 0.1, 0.5, run="base", beta=None), cfg, cross_prompt_bound=0.9)


def lines(figure):
    return {line.get_label(): line for line in figure.axes[0].get_lines()}


def test_points_are_drawn_at_their_values(at, landmarks):
    trajectory = [at(0, 0.1, 0.5), at(500, 0.8, 0.45), at(1000, 1.1, 0.55)]
    siblings = {"beta0": [at(0, 0.1, 0.5, run="beta0", beta=0.0), at(500, 1.2, 0.31, run="beta0", beta=0.0)]}
    figure = pareto_figure(trajectory, siblings, landmarks)
    FigureCanvasAgg(figure).draw()
    axes, drawn = figure.axes[0], lines(figure)
    np.testing.assert_allclose(drawn["beta15 (β = 15)"].get_xydata(), [[0.1, 0.5], [0.8, 0.45], [1.1, 0.55]])
    np.testing.assert_allclose(drawn["beta0 (β = 0)"].get_xydata(), [[0.1, 0.5], [1.2, 0.31]])
    np.testing.assert_allclose(drawn["base, γ = 1"].get_xydata(), [[0.1, 0.5]])
    np.testing.assert_allclose(drawn["base, CFG γ = 3, “Bad audio quality.”"].get_xydata(), [[1.2, 0.3]])
    assert set(drawn["two different prompts"].get_ydata()) == {0.9}
    assert [text.get_text() for text in axes.texts] == ["0", "500", "1000"]
    assert "quality" in axes.get_xlabel() and "diversity" in axes.get_ylabel() and "32 prompts × 4" in axes.get_title()
    assert {text.get_text() for text in axes.get_legend().get_texts()} == set(drawn)


def test_intervals_are_light_bars(at):
    figure = pareto_figure([at(0, 0.1, 0.5), at(500, 0.8, 0.45)])
    horizontal, vertical = figure.axes[0].collections
    np.testing.assert_allclose(np.array(horizontal.get_segments())[:, :, 0], [[0.05, 0.2], [0.75, 0.9]])
    np.testing.assert_allclose(np.array(vertical.get_segments())[:, :, 1], [[0.45, 0.6], [0.4, 0.55]])
    assert horizontal.get_color()[0][:3].min() > 0.6


def test_lines_differ_without_colour(at, landmarks):
    siblings = {f"run{i}": [at(0, 0.0, 0.5, run=f"run{i}"), at(500, 1.0, 0.1 * i, run=f"run{i}")] for i in range(8)}
    drawn = [
        line for line in pareto_figure([at(0, 0.1, 0.5), at(500, 0.2, 0.4)], siblings, landmarks).axes[0].get_lines()
    ]
    styles = [(str(line.get_linestyle()), str(line._unscaled_dash_pattern), line.get_marker()) for line in drawn]
    assert len(set(styles)) == len(styles) == MAX_SIBLINGS + 4


def test_incomparable_points_are_an_error(at, landmarks):
    with pytest.raises(ValueError, match="two plots"):
        pareto_figure([at(0, 0.1, 0.5)], {"x": [at(0, 0.1, 0.5, protocol="full")]})
    with pytest.raises(ValueError, match="two plots"):
        pareto_figure([at(0, 0.1, 0.5, scorers="others")], landmarks=landmarks)
    with pytest.raises(ValueError, match="no points"):
        pareto_figure([])


def test_siblings_are_the_newest_comparable_runs(at, tmp_path):
    own = at(0, 0.1, 0.5, run="own")
    for number, name in enumerate(["own", *(f"run{i}" for i in range(MAX_SIBLINGS + 1)), "other"]):
        file = PointsFile(tmp_path / name / "points.jsonl")
        file.append(replace(own, run=name, protocol="full" if name == "other" else "quick"))
        file.append(replace(own, run=name, step=500, scorers="others"))
        os.utime(file.path, (number, number))
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "points.jsonl").write_text("{}\n")
    with pytest.warns(UserWarning, match="line 1"):
        siblings = sibling_trajectories(tmp_path, own)
    assert list(siblings) == [f"run{i}" for i in range(1, MAX_SIBLINGS + 1)]
    assert all([p.step for p in points] == [0] for points in siblings.values())
