from __future__ import annotations

import importlib.util
from argparse import Namespace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from qd.objectives.triplet import semi_hard_triplet


@pytest.fixture
def script():
    """The experiment as a module."""
    path = Path(__file__).resolve().parents[2] / "experiments" / "triplet_memory.py"
    spec = importlib.util.spec_from_file_location("triplet_memory", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_batch_resembles_the_middle_of_training(script):
    vectors, labels = script.batch(64)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(64))
    assert labels.tolist() == [i // 2 for i in range(64)]
    result = semi_hard_triplet(vectors, labels, script.MARGIN)
    assert 0.1 < float(result.active_share) < 0.9


def test_both_compute_the_same_number(script):
    pytest.importorskip("pytorch_metric_learning")
    vectors, labels = script.batch(64)
    for other in (script.ours(), script.peer()):
        assert other(vectors, labels).item() == pytest.approx(naive(vectors, labels, script.MARGIN), rel=1e-5)


def naive(vectors: torch.Tensor, labels: torch.Tensor, margin: float) -> float:
    points, terms = vectors.detach().double(), []
    for a, anchor in enumerate(points):
        distance = (points - anchor).square().sum(1).tolist()
        others = [n for n in range(len(points)) if labels[n] != labels[a]]
        for p in [p for p in range(len(points)) if labels[p] == labels[a] and p != a]:
            gaps = [distance[p] - distance[n] for n in others]
            terms += [gap + margin for gap in gaps if -margin < gap < 0]
    return sum(terms) / len(terms)


def test_a_cell_that_runs_out_of_memory_is_reported(script, monkeypatch):
    def run(command, **_):
        name = command[command.index("--worker") + 1]
        if name == script.PEER:
            return SimpleNamespace(returncode=script.OUT_OF_MEMORY, stdout="")
        mib = 50 if "baseline" in name else 150
        return SimpleNamespace(
            returncode=0, stdout=f'{{"seconds": 0.5, "mib": {mib}, "loss": 0.1, "gradient": [1.0]}}\n'
        )

    monkeypatch.setattr(script.subprocess, "run", run)
    ours, peer = script.rows(Namespace(repeats=1, threads=None, limit=None), 256)
    assert ours == ["256", "ours", "100", "0.5000", "–", "–"]
    assert peer == ["256", script.PEER, "out of memory", "–", "–", "–"]


def test_the_error_without_the_library_says_how_to_install_it(script, monkeypatch):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(script, "version", missing)
    with pytest.raises(SystemExit, match="pip install pytorch-metric-learning"):
        script.main([])
