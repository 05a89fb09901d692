from __future__ import annotations

import re

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from qd.commands.embedder_report import embedder_report
from qd.evaluation.embedder import baselines as embedder_baselines
from qd.evaluation.embedder.figure import report_figure
from qd.evaluation.embedder.invariance import ALTERATIONS
from qd.evaluation.embedder.measurement import DIFFERENT, SAME, EmbedderMeasurement, calibrate
from qd.evaluation.embedder.tables import (
    calibration_table,
    invariance_table,
    recall_table,
    relative_table,
    retrieval_table,
)
from qd.metrics.bootstrap import Interval


def measurement(shift: float) -> EmbedderMeasurement:
    rng = np.random.default_rng(0)
    cosines = rng.uniform(0.0, 0.2, (8, 8)) + np.eye(8) * 0.5
    return EmbedderMeasurement(
        retrieval={"recall@1": 0.75, "recall@5": 0.9, "auc": 0.98},
        same=cosines.diagonal() + shift,
        different=cosines[~np.eye(8, dtype=bool)].reshape(8, 7) + shift,
        invariance={name: Interval(0.6 + shift, 0.5 + shift, 0.65 + shift) for name in ("noise", "drums added")},
        altered_clips={"noise": 8, "drums added": 3},
        altered_recall={"noise": 0.5 + shift},
        calibration=calibrate(cosines + shift, list("aabbccdd")),
    )


@pytest.fixture
def measured() -> dict[str, EmbedderMeasurement]:
    return {"mine": measurement(0.0), "MFCC": measurement(0.1)}


def cells(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_tables_have_one_column_per_embedder(measured):
    assert cells(retrieval_table(measured))[2:] == [[name, "0.750", "0.900", "0.980"] for name in measured]
    header, _, *rows = cells(invariance_table(measured))
    assert header[2:] == ["mine", "MFCC"]
    assert rows[1] == ["drums added", "3", "0.600 [0.500, 0.650]", "0.700 [0.600, 0.750]"]
    assert [row[0] for row in rows[2:]] == [f"*{SAME}*", f"*{DIFFERENT}*"]
    assert len({len(row) for row in cells(invariance_table(measured))}) == 1


def test_relative_cosines_are_zero_for_others_and_one_for_the_clip_itself(measured):
    (_, _, noise, *_), result = cells(relative_table(measured)), measured["mine"]
    apart = result.different.mean()
    assert noise[1] == f"{(0.6 - apart) / (1 - apart):.2f}"


def test_recall_of_altered_clips_is_next_to_that_of_unchanged_ones(measured):
    assert cells(recall_table(measured))[2:] == [
        ["*the unchanged clip*", "0.750", "0.750"],
        ["noise", "0.500", "0.600"],
    ]


def test_calibration_shows_dissimilarities(measured):
    rows = {row[0]: row for row in cells(calibration_table(measured))}
    assert rows["same genre"][1] == "8" and rows["different genre"][1] == "48"
    assert rows["same recording"][2].startswith(f"{1 - measured['mine'].same.mean():.3f} [")


def test_figure_draws_the_measurements(measured):
    figure = report_figure(measured, "title")
    FigureCanvasAgg(figure).draw()
    assert len(figure.axes) == 4
    for axes, result in zip(figure.axes[2:], measured.values(), strict=True):
        dots = axes.containers[0].lines[0]
        np.testing.assert_allclose(dots.get_xdata().astype(float), [v.mean for v in result.invariance.values()])
        drawn = {line.get_label(): line.get_xdata()[0] for line in axes.get_lines()}
        assert drawn[SAME] == pytest.approx(result.same.mean()) and drawn[DIFFERENT] < drawn[SAME]
    with pytest.raises(ValueError, match="no measurements"):
        report_figure({}, "title")


def test_a_report_has_all_measurements(tiny_embedder, tmp_path, monkeypatch):
    monkeypatch.setattr(embedder_baselines, "CLAP", "nobody/has-this-clap")
    folder = embedder_report(tiny_embedder, n=16, out=tmp_path / "a b", device="cpu")
    assert folder == tmp_path / "a b"
    assert (folder / "report.png").read_bytes().startswith(b"\x89PNG")
    text = (folder / "report.md").read_text()
    assert all(f"| {name} | " in text for name in ALTERATIONS)
    assert "hf download" in text and "![histograms" in text and "(report.png)" in text
    assert all(f"\n| {name} | " in text for name in ("MFCC", "same recording", "different genre"))
    assert len(re.findall(r"0\.\d{3} \[", text)) > 20
    assert "nan" not in text


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"n": 9}, "n is 9; expected 10"),
        ({"world": 3}, "world is 3; expected .*: 1, 2"),
        ({"validation_share": 1.0}, "validation_share is 1.0"),
        ({"embedder": "no/such"}, "'no/such'"),
        ({"clap": "no-such-clap"}, "'no-such-clap' does not exist"),
        ({"device": "cuda:99"}, "not on this machine"),
    ],
)
def test_bad_input_is_an_error_and_writes_nothing(tiny_embedder, tmp_path, change, problem):
    options = {"embedder": tiny_embedder, "out": tmp_path / "out", "device": "cpu", **change}
    with pytest.raises(ValueError, match=problem):
        embedder_report(**options)
    assert not (tmp_path / "out").exists()


def test_too_few_held_out_recordings_are_an_error(tiny_embedder, tmp_path, monkeypatch):
    class Few:
        def __len__(self) -> int:
            return 3

    monkeypatch.setattr("qd.commands.embedder_report.open_heldout", lambda *options: Few())
    with pytest.raises(ValueError, match="'my music' has 3 held-out recordings; expected 10 or more"):
        embedder_report(tiny_embedder, data="my music", out=tmp_path / "out", device="cpu")


def test_a_folder_with_other_shapes_is_an_error(tiny_embedder, tmp_path):
    (tmp_path / "config.json").write_text(
        (tiny_embedder / "config.json").read_text().replace('"width": 16', '"width": 8')
    )
    (tmp_path / "model.safetensors").write_bytes((tiny_embedder / "model.safetensors").read_bytes())
    with pytest.raises(ValueError, match="weights do not fit config.json"):
        embedder_report(tmp_path, out=tmp_path / "out", device="cpu")
