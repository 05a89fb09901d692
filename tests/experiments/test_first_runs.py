"""The page of the first runs, from two runs of the tiny model."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

import qd.evaluation.evaluator
from qd.commands.train import train
from qd.config.protocols import PROTOCOLS, Protocol
from tests.conftest import CLIP_SECONDS
from tests.tiny_run import stand_in_quality

SCRIPT = Path(__file__).resolve().parents[2] / "experiments" / "first_runs.py"


def test_two_runs_are_told_to_the_end(
    tiny_config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(qd.evaluation.evaluator, "load_quality", stand_in_quality)
    monkeypatch.setitem(PROTOCOLS, "full", Protocol("full", "heldout", 3, 2, CLIP_SECONDS))
    short = ["data.batch_size=8", "data.micro_batch_size=8", "trainer.max_steps=2", "trainer.log_every=1"]
    short += ["evaluation.n_prompts=2", "evaluation.n_samples=2", "evaluation.audio_prompts=1"]
    runs = [train(tiny_config(f"name=beta{beta}", f"beta={beta}", *short)) for beta in (0, 15)]
    figure = tmp_path / "pareto.png"
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, runs), "--protocol", "full", "--figure", str(figure)])
    capsys.readouterr()
    runpy.run_path(str(SCRIPT), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    names = [line.split(" | ")[0].removeprefix("| ") for line in lines if line.startswith("| ")]
    points = ["beta0"] * 2 + ["beta15"] * 2
    compared = ["CFG − base", "beta0 − base", "beta0 − CFG", "beta15 − base", "beta15 − CFG", "beta15 − beta0"]
    measured = ["model", "base", "CFG", "beta0", "beta15"]
    assert names == ["run", "beta0", "beta15", "run", *points, *measured, "difference", *compared]
    assert "### Final weights: protocol full, 3 held-out prompts" in lines
    assert figure.is_file() and not any("nan" in line for line in lines)
