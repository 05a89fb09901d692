"""Starts and compares whole runs of ``qd train``."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from qd.config.loading import to_yaml
from qd.config.train import TrainConfig

STEPS = 8
WORKER = Path(__file__).parents[1] / "tiny_run.py"
FAKES = runpy.run_path(str(WORKER))
Config = Callable[..., TrainConfig]


def elsewhere(config: TrainConfig, folder: Path) -> TrainConfig:
    return replace(config, trainer=replace(config.trainer, runs=str(folder)))


def outcome(run: Path) -> tuple[dict, list[dict], dict, dict]:
    """Final weights, points without wall times and paths, the state of the module and of the optimiser."""
    weights = load_file(run / f"step-{STEPS:06d}" / "decoder" / "model.safetensors")
    rows = [json.loads(line) for line in (run / "points.jsonl").read_text().splitlines()]
    points = [{k: v for k, v in row.items() if k not in ("seconds", "model")} for row in rows]
    checkpoint = torch.load(run / "last.ckpt", weights_only=True)
    return weights, points, checkpoint["state_dict"], checkpoint["optimizer_states"][0]["state"]


def assert_same_outcome(run: Path, other: Path) -> None:
    (weights, points, state, moments), (weights_, points_, state_, moments_) = outcome(run), outcome(other)
    for mine, theirs in ((weights, weights_), (state, state_)):
        assert mine.keys() == theirs.keys()
        assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []
    assert points == points_
    assert all(torch.equal(value, moments_[p][k]) for p, values in moments.items() for k, value in values.items())


def start(config: TrainConfig, *options: str) -> subprocess.Popen[str]:
    """Starts the run as a process; it prints a line for each step."""
    path = Path(config.trainer.runs).with_suffix(".yaml")
    path.write_text(to_yaml(config), encoding="utf-8")
    return launch("--config", str(path), *options)


def launch(*options: str) -> subprocess.Popen[str]:
    """Starts ``qd train`` with these options.

    Compared runs are processes of their own: threads and memory of other tests may change the last bit of a sum.
    """
    code = f"import sys, torch, runpy; torch.set_num_threads({torch.get_num_threads()}); sys.argv = sys.argv[1:]; "
    code += "sys.path.insert(0, '.'); runpy.run_path(sys.argv[0], run_name='__main__')"
    command = [sys.executable, "-c", code, str(WORKER), "train", *options]
    root = WORKER.parents[1]
    return subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(process: subprocess.Popen[str], text: str) -> None:
    for line in process.stdout:
        if line.startswith(text):
            return
    raise AssertionError(f"the run ended before {text!r}: {process.stderr.read()}")


def finished(process: subprocess.Popen[str], run: Path) -> Path:
    """Waits for the end of the run; returns the run folder."""
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return run
