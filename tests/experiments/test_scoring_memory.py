"""The floor of scoring, compared with the operations that torch counts."""

from __future__ import annotations

import importlib
from pathlib import Path


def test_the_floor_is_the_products_of_the_plain_form(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "experiments"))
    scoring, tools = (importlib.import_module(name) for name in ("scoring_memory", "bench_tools"))
    shape = {"batch": 3, "codebooks": 2, "frames": 4, "vocabulary": 5, "width": 6}
    one_token = 2 * 6 * 2 * 5  # a product that only gives the vocabulary's size
    counted = tools.flops_of(lambda: scoring.score_once("plain", shape))
    assert counted == scoring.product_operations(shape) + one_token


def test_the_row_of_the_benchmark_has_its_floor(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "experiments"))
    scoring = importlib.import_module("scoring_memory")
    worker = '{"seconds": 20.0, "MiB": 1.0, "gradient norms": [1.0], "rate": 1e11}'
    monkeypatch.setattr(scoring.subprocess, "run", lambda *command, **options: type("Run", (), {"stdout": worker}))
    row = scoring.memory_row()
    assert row["floor"] == scoring.product_operations(scoring.SMALL) / 1e11 and row["GFLOP/s"] == 100
    assert row["over the floor"] == 20.0 / row["floor"]
