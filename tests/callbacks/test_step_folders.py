"""Step folders: when they are written, which are kept, what is in them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from omegaconf import OmegaConf

from qd.callbacks.step_folders import StepFolders


class Music:
    """Writes the step of its owner, in place of weights."""

    step = 0

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "weights").write_text(str(self.step))


def run(folder: Path, steps: range, keep: int | None, total: int = 10) -> list[str]:
    module = SimpleNamespace(music=Music())
    callback = StepFolders(folder, every=4, keep=keep, recipe={"run": "x", "config": {"beta": 15.0}})
    for step in steps:
        module.music.step = step
        trainer = SimpleNamespace(global_step=step, max_steps=total, is_global_zero=True)
        callback.on_step_end(trainer, module)
    return sorted(path.name for path in folder.iterdir())


def test_every_so_many_steps_and_at_the_end(tmp_path: Path) -> None:
    assert run(tmp_path, range(1, 11), keep=None) == ["step-000004", "step-000008", "step-000010"]


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    assert run(tmp_path, range(1, 11), keep=2) == ["notes", "step-000008", "step-000010"]


def test_the_recipe_says_how_the_weights_were_made(tmp_path: Path) -> None:
    run(tmp_path, range(1, 5), keep=None)
    recipe = OmegaConf.to_container(OmegaConf.load(tmp_path / "step-000004" / "recipe.yaml"))
    assert recipe == {"kind": "distillation", "step": 4, "run": "x", "config": {"beta": 15.0}}


def test_what_a_killed_run_left_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "step-000004").mkdir()
    (tmp_path / "step-000004" / "weights").write_text("of the killed run")
    (tmp_path / "unfinished-000008").mkdir()
    assert run(tmp_path, range(1, 9), keep=None) == ["step-000004", "step-000008"]
    assert (tmp_path / "step-000004" / "weights").read_text() == "4"
