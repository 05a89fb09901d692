"""``qd evaluate`` with musical facets and thresholds: what is measured, reused, and measured again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import qd.evaluation.evaluator as evaluator_module
from qd.cli.main import main
from qd.evaluation.columns import CLEAN, EFFECTIVE, FACETS, METRICS
from qd.evaluation.measure import evaluate_policy
from qd.evaluation.points import PointsFile
from tests.conftest import CLIP_SECONDS
from tests.tiny_run import stand_in_quality


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list:
    """Lists the measurements that are really made."""
    calls = []

    def counted(*args, **kwargs):
        calls.append(args)
        return evaluate_policy(*args, **kwargs)

    monkeypatch.setattr(evaluator_module, "load_quality", stand_in_quality)
    monkeypatch.setattr(evaluator_module, "evaluate_policy", counted)
    return calls


@pytest.fixture
def evaluate(tiny_model: Path, tiny_embedder: Path, tmp_path: Path, measured: list):
    """Measures one model and returns the lines of the results file."""
    file = tmp_path / "points.jsonl"
    settings = [f"embedder={tiny_embedder}", f"eval_embedder={tiny_embedder}", f"seconds={CLIP_SECONDS}"]
    settings += ["n_prompts=3", "n_samples=4", "audio_prompts=0"]

    def run(*arguments: str) -> list[dict]:
        fixed = ["evaluate", "--device=cpu", "--model", str(tiny_model), "--out", str(file)]
        assert main([*fixed, *arguments, *settings]) == 0
        return [json.loads(line) for line in file.read_text().splitlines()]

    return run


def test_facets_and_good_clips_are_columns(evaluate):
    (row,) = evaluate()
    for name in (*CLEAN, *EFFECTIVE, *FACETS):
        assert {name, f"{name}_lo", f"{name}_hi"} <= row.keys()
    assert row["loudness"] < 0 and 0 <= row["tempo_spread"] <= 0.5
    assert "clean>=" not in row["scorers"]


def test_facets_can_be_left_out_and_measured_later(evaluate, measured, tmp_path):
    (row,) = evaluate("facets=false")
    assert not set(FACETS) & row.keys() and set(CLEAN) <= row.keys()
    evaluate("facets=false")
    assert len(measured) == 1
    first, second = evaluate()
    assert len(measured) == 2 and all(first[name] == pytest.approx(second[name], rel=1e-5) for name in METRICS)
    (point,) = PointsFile(tmp_path / "points.jsonl").read()
    assert point.has_facets
    assert len(evaluate()) == len(evaluate("facets=false")) == 2 and len(measured) == 2


def test_an_earlier_distance_and_later_facets_are_one_point(evaluate, measured, tiny_embedder, tmp_path, monkeypatch):
    monkeypatch.setattr("qd.evaluation.fad_reference.SECONDS", CLIP_SECONDS)
    fad = ["fad_pieces=10", f"fad_embedder={tiny_embedder}"]
    evaluate(*fad, "facets=false")
    evaluate()
    (point,) = PointsFile(tmp_path / "points.jsonl").read()
    assert point.has_facets and point.fad > 0 and point.kad is not None and len(measured) == 2
    assert len(evaluate(*fad)) == 2 and len(measured) == 2


def test_other_thresholds_are_other_points(evaluate, measured):
    everything, usual = "quality_threshold=-1000000.0", "clean_threshold=0"
    (row,) = evaluate(everything)
    assert row["scorers"].endswith("quality>=-1000000.0")
    assert row["effective_share"] == 1.0 and row["diversity_effective"] == pytest.approx(row["diversity"])
    assert row["effective_left_out"] == 0.0
    rows = evaluate(usual)
    assert len(rows) == len(measured) == 2 and rows[0]["key"] != rows[1]["key"]
    *_, none = evaluate("clean_threshold=1000000.0")
    assert none["clean_left_out"] == 1.0 and none["diversity_clean"] is None and none["clean_share"] == 0.0
