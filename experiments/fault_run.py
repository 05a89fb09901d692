"""The short training run that the faults hit, and what must be equal to an uninterrupted one."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch

from experiments.fault_child import Mark, Trap
from experiments.fault_processes import start
from qd.evaluation.points import FILE, PointsFile
from qd.models.checkpoints.resolver import step_folders
from qd.runs.atomic import OLD, TEMPORARY
from qd.runs.folders import CHECKPOINT, CONFIG

NAME, STEPS = "x", 8
SETTINGS = (
    f"--name={NAME}",
    "trainer.device=cpu",
    "trainer.precision=32-true",
    f"trainer.max_steps={STEPS}",
    "trainer.checkpoint_every=2",
    "trainer.save_weights_every=4",
    "trainer.log_every=1",
    "rollout.seconds=0.5",
    "rollout.samples_per_prompt=2",
    "data.batch_size=4",
    "data.micro_batch_size=2",
    "evaluation.every=4",
    "evaluation.n_prompts=2",
    "evaluation.n_samples=2",
    "evaluation.audio_prompts=1",
)


@dataclass(frozen=True)
class Reference:
    """What an uninterrupted run has written.

    Attributes:
        states: Hash of weights, baseline and optimiser by step.
        folders: Hash of the weights of each step folder.
        points: Measured points by step.
        marks: The phases of its process.
    """

    states: dict[int, str]
    folders: dict[int, str]
    points: dict[int, dict[str, Any]]
    marks: list[Mark]

    def seconds(self, phase: str) -> float:
        """Longest time in a phase."""
        times = [mark for mark in self.marks if mark.phase == phase]
        return max(end.seconds - begin.seconds for begin, end in zip(times[::2], times[1::2], strict=True))

    @property
    def operations(self) -> int:
        """Number of file operations."""
        return operations(self.marks)


def operations(marks: list[Mark]) -> int:
    """The number of file operations that a process has reported."""
    return max(mark.number for mark in marks if mark.phase == "operation")


def first(runs: Path) -> list[str]:
    """Words that start the run in a folder of run folders; an existing run is resumed."""
    if (runs / NAME / CONFIG).is_file():
        return ["train", "--resume", str(runs / NAME)]
    return ["train", *SETTINGS, f"trainer.runs={runs}"]


@cache
def reference() -> Reference:
    """Runs without a fault; after each checkpoint the process is stopped for a moment, and the checkpoint is hashed."""
    runs = Path(mkdtemp(prefix="qd-reference-"))
    run, states = runs / NAME, {}
    running = start(*first(runs), "trainer.checkpoint_every=1", trap=Trap(runs, 0))
    for number in range(STEPS + 1):
        if running.reaches("checkpoint", number + 1, begins=False):
            running.send(signal.SIGSTOP)
            states.update([checkpoint_state(run)])
            running.send(signal.SIGCONT)
    status, text = running.end()
    if status != 0 or sorted(states) != list(range(STEPS + 1)):
        raise RuntimeError(f"the run without a fault failed: {sorted(states)}, {text}")
    result = Reference(states, _folders(run), _points(run), running.marks)
    shutil.rmtree(runs)
    return result


def loss(runs: Path, least: int = -1, finished: bool = False) -> str | None:
    """Compares a stopped or finished run with the reference, bit by bit.

    Args:
        runs: Folder of run folders.
        least: Step that was saved before; no later stop may lose it.
        finished: Whether the run has ended without a fault.

    Returns:
        What was lost; None if nothing was.
    """
    run, right, step = runs / NAME, reference(), -1
    if (run / CHECKPOINT).exists():
        try:
            step, state = checkpoint_state(run)
        except Exception as error:
            return f"{CHECKPOINT} is damaged: {error}"
        if right.states.get(step) != state:
            return f"{CHECKPOINT} of step {step} differs from that of an uninterrupted run"
        if step < least:
            return f"{CHECKPOINT} is that of step {step}, but step {least} was saved"
    elif least >= 0:
        return f"{CHECKPOINT} is missing, but step {least} was saved"
    folders, points = _folders(run), _points(run)
    if wrong := [step for step, state in folders.items() if right.folders.get(step) != state]:
        return f"the step folders {wrong} differ from those of an uninterrupted run"
    if wrong := [step for step, point in points.items() if right.points.get(step) != point]:
        return f"the points of the steps {wrong} differ from those of an uninterrupted run"
    if finished and (step, *folders, *points) != (STEPS, *right.folders, *right.points):
        return f"the run ended with step {step}, step folders {list(folders)} and points {list(points)}"
    return half_written(runs) if finished else None


def half_written(folder: Path) -> str | None:
    """Names what is left of an interrupted write; None if nothing is."""
    left = [str(path) for path in folder.rglob("*") if path.suffix in (TEMPORARY, OLD)]
    return f"half-written: {', '.join(left)}" if left else None


def checkpoint_state(run: Path) -> tuple[int, str]:
    """Step and hash of a checkpoint: weights, baseline, moments."""
    content = torch.load(run / CHECKPOINT, weights_only=True)
    digest = hashlib.sha256()
    for name, tensor in sorted(content["state_dict"].items()):
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    for state in content["optimizer_states"]:
        for number, moments in sorted(state["state"].items()):
            for name, tensor in sorted(moments.items()):
                digest.update(f"{number} {name}".encode() + tensor.contiguous().numpy().tobytes())
    return content["global_step"], digest.hexdigest()


def _folders(run: Path) -> dict[int, str]:
    """Hash of the weights of each step folder."""
    hashes = {}
    for folder in step_folders(run) if run.is_dir() else []:
        digest = hashlib.sha256()
        for file in sorted(folder.rglob("*.safetensors")):
            digest.update(str(file.relative_to(folder)).encode() + file.read_bytes())
        hashes[int(folder.name.rpartition("-")[2])] = digest.hexdigest()
    return hashes


def _points(run: Path) -> dict[int, dict[str, Any]]:
    """The points by step, without wall times and paths."""
    points = [json.loads(point.to_json()) for point in PointsFile(run / FILE).read()]
    return {point["step"]: {k: v for k, v in point.items() if k not in ("seconds", "model")} for point in points}
