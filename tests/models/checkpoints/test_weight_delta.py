"""Finetuned models stored as 8-bit deltas to the base: the quantisation error, and their use in every command."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from qd.commands.merge import merge
from qd.commands.ship import ship
from qd.commands.train import train
from qd.evaluation.points import FILE, Point, PointsFile
from qd.metrics.bootstrap import Interval
from qd.models.checkpoints import resolver
from qd.models.checkpoints.resolver import resolve_model
from qd.models.checkpoints.weight_delta import DELTA_FILE, read_delta, restore_checkpoint, trained_tensors, write_delta
from qd.models.codecs.codec import load_codec
from qd.models.musicgen import MusicGen
from tests.models.merging.conftest import rewrite, sibling
from tests.runs.full_disk import full_disk


@pytest.fixture
def shipped(tiny_model: Path, tmp_path: Path, monkeypatch) -> Path:
    """Folder of assets in which the tiny model is the shipped base; the cache is empty."""
    assets = tmp_path / "assets"
    shutil.copytree(tiny_model, assets / "base")
    for scorer in ("adherence", "preference"):
        (assets / scorer).symlink_to(resolver.ASSETS / scorer)
    monkeypatch.setattr(resolver, "ASSETS", assets)
    monkeypatch.setenv("QD_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return assets


@pytest.fixture
def run(shipped, tiny_config) -> Path:
    """Folder of a run with two steps, which started from the base."""
    return train(tiny_config("name=mine", "model.name=base", "beta=15", "trainer.max_steps=2", *SHORT))


SHORT = (
    "optimizer.learning_rate=0.01", "evaluation.n_prompts=2", "evaluation.n_samples=2", "data.batch_size=4",
    "data.micro_batch_size=4",
)  # fmt: skip


def naive(delta: torch.Tensor) -> torch.Tensor:
    """Quantises row by row and number by number."""
    if delta.ndim < 2:
        return delta
    rows = []
    for row in delta:
        step = max(abs(number) for number in row.tolist()) / 127
        rows.append([round(number / step) * step if step else 0.0 for number in row.tolist()])
    return torch.tensor(rows)


def test_the_error_is_at_most_half_a_step_per_number(tiny_model, tmp_path):
    model = sibling(tiny_model, tmp_path / "model", seed=1)
    error = write_delta(tmp_path / DELTA_FILE, model, tiny_model)
    base, after = trained_tensors(tiny_model), trained_tensors(model)
    restored = read_delta(tmp_path / DELTA_FILE)
    assert restored.keys() == base.keys() and any(name.startswith("projection") for name in base)
    lost = total = 0.0
    for name, tensor in restored.items():
        delta = after[name] - base[name]
        torch.testing.assert_close(tensor, naive(delta), rtol=1e-4, atol=1e-6)
        if delta.ndim < 2:
            assert torch.equal(tensor, delta)
        lost += (tensor - delta).square().sum().item()
        total += delta.square().sum().item()
    assert error == pytest.approx((lost / total) ** 0.5, rel=1e-3) and 0.001 < error < 0.01
    stored = sum(tensor.nbytes for name, tensor in load_file(tmp_path / DELTA_FILE).items() if tensor.ndim > 1)
    assert stored < 0.4 * sum(tensor.nbytes for tensor in base.values())


def test_an_unchanged_model_is_restored_bit_for_bit(tiny_model, tmp_path):
    assert write_delta(tmp_path / DELTA_FILE, tiny_model, tiny_model) == 0
    assert not any(tensor.any() for tensor in read_delta(tmp_path / DELTA_FILE).values())


def test_a_shipped_run_loads_in_every_command(run, shipped, tiny_config, tmp_path):
    assert ship("runs/mine", "beta15") == shipped / "finetuned" / "beta15"
    folder = Path(resolve_model("beta15"))
    assert folder == Path(resolve_model("beta15")) and folder.is_relative_to(tmp_path / "cache")
    music, original, base = MusicGen.load("beta15"), MusicGen.load("runs/mine"), MusicGen.load("base")
    moved = [(a - b).norm() for a, b in zip(original.lm.parameters(), base.lm.parameters(), strict=True)]
    lost = [(a - b).norm() for a, b in zip(music.lm.parameters(), original.lm.parameters(), strict=True)]
    assert 0 < torch.stack(lost).norm() < 0.01 * torch.stack(moved).norm()
    assert load_codec("beta15").sample_rate == music.sample_rate
    for part in ("text_encoder", "codec"):
        same = zip(getattr(music, part).parameters(), getattr(base, part).parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in same)
    assert json.loads((folder / "decoder" / "generation_config.json").read_text())["guidance_scale"] == 1.0

    merged = merge("base", "beta15", lam=1.0, out=tmp_path / "merged")
    assert trained_tensors(merged).keys() == trained_tensors(folder).keys()
    assert all(torch.equal(a, trained_tensors(folder)[name]) for name, a in trained_tensors(merged).items())
    assert "beta15" in (merged / "recipe.yaml").read_text() and str(folder) not in (merged / "recipe.yaml").read_text()

    again = train(tiny_config("name=again", "model.name=beta15", "trainer.max_steps=1", *SHORT))
    assert "name: beta15" in (again / "config.yaml").read_text()
    card = next(again.glob("step-*/README.md")).read_text(encoding="utf-8")
    assert "license: apache-2.0" in card and "Finetuned from the built-in model `beta15`" in card


def test_the_card_states_the_training_and_the_measurements(run, shipped):
    card = (ship("runs/mine", "beta15") / "README.md").read_text(encoding="utf-8")
    assert "license: apache-2.0" in card and "β = 15" in card and "mine, step 2 of 2" in card
    rows = [line for line in card.splitlines() if line.startswith(("| base", "| beta15"))]
    assert len(rows) == 2 and "## Config" in card
    texts = [card, (shipped / "finetuned" / "beta15" / "recipe.yaml").read_text(encoding="utf-8")]
    assert all(f"runs: {run.parent}" not in text and "runs: runs" in text for text in texts)  # no local path
    time = next(line for line in card.splitlines() if line.startswith("| time"))
    assert "s a step" in time or "not logged" in time


def test_the_card_only_uses_measurements_of_its_step(run, shipped, tmp_path):
    points = PointsFile(tmp_path / "other.jsonl")
    (last,) = [point for point in PointsFile(run / FILE).read() if point.step == 2]
    points.append(replace(last, step=1, model="runs/mine"))
    ship("runs/mine", "beta0", points.path)
    assert "Not measured without guidance at T = 0.99." in (shipped / "finetuned" / "beta0" / "README.md").read_text(
        encoding="utf-8"
    )
    points.append(replace(last, model="runs/mine"))
    ship("runs/mine", "beta15", points.path)
    assert "| beta15 |" in (shipped / "finetuned" / "beta15" / "README.md").read_text(encoding="utf-8")


def test_the_card_uses_the_runs_temperature_and_the_largest_protocol(run, shipped, tmp_path):
    points = PointsFile(tmp_path / "sweep.jsonl")
    (last,) = [point for point in PointsFile(run / FILE).read() if point.step == 2]
    base = replace(last, model="base", run="base", step=0)

    def add(point: Point, key: str, quality: float, **changes) -> None:
        metrics = {**point.metrics, "quality": Interval(quality, quality, quality)}
        points.append(replace(point, key=key, metrics=metrics, **changes))

    for number, (temperature, quality) in enumerate(((0.99, 1.25), (1.2, 7.5))):  # as the default sweep ends
        full = {"protocol": "full", "n_prompts": 101, "n_samples": 4, "temperature": temperature}
        add(base, f"base-{number}", quality - 1, series="temperature-base", **full)
        add(last, f"mine-{number}", quality, series="temperature-beta0", **full)
    add(base, "base-quick", 8.5)
    add(last, "mine-quick", 9.5)
    card = (ship("runs/mine", "beta0", points.path) / "README.md").read_text(encoding="utf-8")
    rows = [line.split(" | ")[1] for line in card.splitlines() if line.startswith(("| base |", "| beta0 |"))]
    assert [row.split()[0] for row in rows] == ["0.250", "1.250"]
    assert "at T = 0.99, on 101 prompts × 4 samples (protocol `full`, seed 0)" in card


def test_own_folders_of_that_name_stay_accessible(run, shipped, tmp_path):
    ship("runs/mine", "beta15")
    shutil.copytree(run, tmp_path / "runs" / "beta15")
    shutil.copytree(run, tmp_path / "beta15")
    assert resolve_model("runs/beta15") == "runs/beta15/step-000002"
    assert resolve_model("./beta15") == "beta15/step-000002"
    assert Path(resolve_model("beta15")).is_relative_to(tmp_path / "cache")


def test_models_that_are_not_shipped_are_reported(shipped):
    with pytest.raises(ValueError, match=r"'beta0' is not shipped .*make ship MODEL=runs/<run> NAME=beta0"):
        resolve_model("beta0")


def test_a_delta_to_another_base_is_refused(run, shipped):
    ship("runs/mine", "beta15")
    rewrite(shipped / "base", lambda path, tensor: tensor + 0.5 if "lm_heads" in path else tensor)
    with pytest.raises(ValueError, match="another base model"):
        resolve_model("beta15")


def test_only_siblings_of_the_base_can_be_shipped(run, shipped, tmp_path):
    step = run / "step-000002"
    rewrite(step, lambda path, tensor: tensor + 0.5 if path.startswith("codec") and tensor.ndim > 2 else tensor)
    with pytest.raises(ValueError, match=r"sibling of the base:\n.*codec/"):
        ship("runs/mine", "beta0")
    with pytest.raises(ValueError, match="'mine'; expected one of beta0, beta15"):
        ship("runs/mine", "mine")
    with pytest.raises(ValueError, match="recipe.yaml"):
        ship("base", "beta0")
    assert not (shipped / "finetuned").exists() or not list((shipped / "finetuned").iterdir())


def test_weights_that_are_not_finite_are_not_shipped(run, shipped):
    rewrite(run / "step-000002", lambda path, tensor: tensor / 0 if path.startswith("decoder") else tensor)
    with pytest.raises(ValueError, match="finite"):
        ship("runs/mine", "beta0")
    assert not list((shipped / "finetuned").iterdir())


def test_a_shipped_model_is_not_overwritten(run, shipped):
    ship("runs/mine", "beta0")
    with pytest.raises(ValueError, match="exists already"):
        ship("runs/mine", "beta0")


def test_concurrent_processes_restore_one_folder(run, shipped, tmp_path):
    asset, base = ship("runs/mine", "beta15"), shipped / "base"
    with multiprocessing.get_context("fork").Pool(4) as pool:
        folders = set(pool.starmap(restore_checkpoint, [(asset, base)] * 4))
    (folder,) = folders
    assert sorted((tmp_path / "cache" / "models").iterdir()) == [folder, folder.with_name(f"{folder.name}.sha256")]


@pytest.mark.parametrize("damage", ["one bit", "cut", "removed", "no hash", "another file"])
def test_a_damaged_cache_is_made_again(run, shipped, capsys, damage):
    ship("runs/mine", "beta15")
    folder = Path(resolve_model("beta15"))
    file, saved = folder / "decoder" / "model.safetensors", (folder / "decoder" / "model.safetensors").read_bytes()
    if damage in ("removed", "another file"):
        file.rename(folder / "other") if damage == "another file" else file.unlink()
    elif damage == "no hash":
        folder.with_name(f"{folder.name}.sha256").unlink()
    else:
        file.write_bytes(saved[:-100] if damage == "cut" else saved[:-1] + bytes([saved[-1] ^ 64]))
    assert resolve_model("beta15") == str(folder) and file.read_bytes() == saved
    assert f"{folder} is damaged and is made again" in capsys.readouterr().err
    assert not (folder / "other").exists()
    resolve_model("beta15")
    assert capsys.readouterr().err == ""


def test_a_cache_that_cannot_be_written_is_one_line_with_the_way_out(run, shipped, tmp_path, monkeypatch):
    ship("runs/mine", "beta15")
    (tmp_path / "file").touch()
    monkeypatch.setenv("QD_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(ValueError, match="QD_CACHE=<folder>") as caught:
        resolve_model("beta15")
    assert f"'{tmp_path / 'file'}' is a file" in str(caught.value) and "\n" not in str(caught.value)
    monkeypatch.setenv("QD_CACHE", str(tmp_path / "full"))
    with full_disk(1000), pytest.raises(ValueError, match="cannot be written.*QD_CACHE=<folder>") as caught:
        resolve_model("beta15")
    assert "GiB free" in str(caught.value) and "\n" not in str(caught.value)
    assert list((tmp_path / "full" / "models").iterdir()) == []
