"""Step folders: when they are written, which ones are kept, and their contents."""

from __future__ import annotations

import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from qd.callbacks.step_folders import StepFolders
from qd.evaluation.columns import METRICS
from qd.evaluation.points import FILE, Point, PointsFile
from qd.metrics.bootstrap import Interval
from qd.models.musicgen import MusicGen

CONFIG = {
    "beta": 15.0,
    "model": {"name": "base"},
    "guidance": {"scale": 3.0, "negative_prompt": None},
    "rollout": {"temperature": 0.99, "seconds": 0.32},
    "trainer": {"max_steps": 10},
    "data": {"batch_size": 8},
}


class Music:
    """A model that also saves the current step."""

    step = 0

    def __init__(self, music: MusicGen) -> None:
        self.lm, self.frames, self._save = music.lm, music.frames, music.save

    def save(self, folder: Path, write: bool = True) -> None:
        self._save(folder, write=write)
        (folder / "weights").write_text(str(self.step))


@pytest.fixture(scope="module")
def music(tiny_model: Path) -> Music:
    return Music(MusicGen.load(tiny_model))


@pytest.fixture
def callback(tmp_path: Path) -> StepFolders:
    return StepFolders(tmp_path, every=4, keep=None, recipe={"run": "x", "config": CONFIG})


def run(callback: StepFolders, music: Music, steps: range, total: int = 10) -> list[str]:
    module = SimpleNamespace(music=music)
    for step in steps:
        music.step = step
        callback.on_step_end(SimpleNamespace(global_step=step, max_steps=total, is_global_zero=True), module)
    return sorted(path.name for path in callback.folder.iterdir())


def point(step: int) -> Point:
    metrics = {name: Interval(step / 10, 0.0, 1.0) for name in METRICS}
    return Point("0", "x", "m", step, 15.0, 1.0, None, 0.99, None, 0, "quick", "loudness@1", 32, 4, metrics, 1.0)


def test_a_folder_is_written_every_few_steps_and_at_the_end(callback: StepFolders, music: Music) -> None:
    assert run(callback, music, range(1, 11)) == ["step-000004", "step-000008", "step-000010"]


def test_only_the_newest_folders_are_kept(callback: StepFolders, music: Music, tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    callback.keep = 2
    assert run(callback, music, range(1, 11)) == ["notes", "step-000008", "step-000010"]


def test_the_recipe_describes_how_the_weights_were_made(callback: StepFolders, music: Music, tmp_path: Path) -> None:
    run(callback, music, range(1, 5))
    recipe = OmegaConf.to_container(OmegaConf.load(tmp_path / "step-000004" / "recipe.yaml"))
    assert recipe == {"kind": "distillation", "step": 4, "run": "x", "config": CONFIG}


def test_folders_of_a_killed_run_are_replaced(callback: StepFolders, music: Music, tmp_path: Path) -> None:
    (tmp_path / "step-000004").mkdir()
    (tmp_path / "step-000004" / "weights").write_text("of the killed run")
    (tmp_path / f".step-000008.{socket.gethostname()}-99999999.tmp").mkdir()
    assert run(callback, music, range(1, 9)) == ["step-000004", "step-000008"]
    assert (tmp_path / "step-000004" / "weights").read_text() == "4"


@pytest.mark.parametrize("measured_first", [True, False])
def test_the_card_includes_the_measurement_of_its_step(
    callback: StepFolders, music: Music, tmp_path: Path, measured_first: bool
) -> None:
    points = PointsFile(tmp_path / FILE)
    points.append(point(0))
    if measured_first:
        points.append(point(4))
    run(callback, music, range(1, 5))
    card = tmp_path / "step-000004" / "README.md"
    if not measured_first:
        assert "Not measured at this step" in card.read_text(encoding="utf-8")
        callback.on_measurement(None, 8, None)  # a step without a folder
        points.append(point(4))
        callback.on_measurement(None, 4, None)
    lines = card.read_text(encoding="utf-8").splitlines()
    assert f"| step 0 | {' | '.join(['0.000 [0.000, 1.000]'] * len(METRICS))} |" in lines
    assert f"| step 4 | {' | '.join(['0.400 [0.000, 1.000]'] * len(METRICS))} |" in lines
