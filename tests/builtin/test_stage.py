from __future__ import annotations

import json
import os
import signal

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from torch import nn

from qd.builtin.stage import fit_stage, stream_loader, write_asset
from qd.modules.schedules import scheduled, warmup_cosine
from tests.runs.full_disk import full_disk

MAX_STEPS = 12


def numbered(index: int) -> dict[str, np.ndarray]:
    return {"index": np.array(index), "x": np.random.default_rng(index).normal(size=4).astype("f4")}


class Toy(pl.LightningModule):
    """Regression that records its examples; it can fail at a step, or receive Ctrl-C in the middle of steps."""

    def __init__(self, fail_at: int | None = None, signals_at: tuple[int, ...] = ()) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.fail_at, self.signals_at, self.seen = nn.Linear(4, 1), fail_at, signals_at, []

    def training_step(self, batch, _):
        if self.global_step == self.fail_at:
            raise RuntimeError("killed")
        for _ in range(self.signals_at.count(self.global_step + 1)):
            os.kill(os.getpid(), signal.SIGINT)
        self.seen += batch["index"].tolist()
        return (self.layer(batch["x"]) - batch["x"].sum(1, keepdim=True)).square().mean()

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), 0.1)
        return scheduled(optimizer, lambda step: warmup_cosine(step, 3, MAX_STEPS))


def fit(module: Toy, folder) -> float:
    return fit_stage(
        module,
        lambda first_step: stream_loader(numbered, 2, first_step),
        folder,
        MAX_STEPS,
        checkpoint_every=5,
        precision="32-true",
        device="cpu",
    )


def test_resumed_fit_equals_an_uninterrupted_one(tmp_path):
    whole = Toy()
    fit(whole, tmp_path / "whole")
    assert whole.seen == list(range(2 * MAX_STEPS))

    killed, resumed = Toy(fail_at=8), Toy()
    with pytest.raises(RuntimeError, match="killed"):
        fit(killed, tmp_path / "killed")
    seconds = fit(resumed, tmp_path / "killed")
    assert resumed.seen == list(range(2 * 5, 2 * MAX_STEPS))  # from the checkpoint of step 5
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name

    finished = Toy()
    assert fit(finished, tmp_path / "killed") == seconds
    assert finished.seen == []
    assert torch.equal(finished.layer.weight, whole.layer.weight)


def test_ctrl_c_saves_the_current_step_and_a_resumed_fit_ends_equal(tmp_path):
    whole, stopped, resumed = Toy(), Toy(signals_at=(7,)), Toy()
    fit(whole, tmp_path / "whole")
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match="step 7 is saved.*make base"):
        fit(stopped, tmp_path / "stopped")
    assert signal.getsignal(signal.SIGINT) == before
    assert stopped.seen == list(range(2 * 7))
    fit(resumed, tmp_path / "stopped")
    assert resumed.seen == list(range(2 * 7, 2 * MAX_STEPS))
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_ctrl_c_at_the_last_step_stops_the_rest_of_the_stage(tmp_path):
    with pytest.raises(KeyboardInterrupt, match=f"step {MAX_STEPS} is saved"):
        fit(Toy(signals_at=(MAX_STEPS,)), tmp_path)
    finished = Toy()
    fit(finished, tmp_path)
    assert finished.seen == []


def test_a_second_ctrl_c_stops_at_once(tmp_path):
    with pytest.raises(KeyboardInterrupt, match="nothing was saved.*last.ckpt"):
        fit(Toy(signals_at=(7, 7)), tmp_path)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 5


def test_stream_is_the_same_for_any_number_of_workers():
    def first_batches(workers: int) -> list[int]:
        batches = iter(stream_loader(numbered, 3, first_step=2, workers=workers))
        return [index for _ in range(4) for index in next(batches)["index"].tolist()]

    assert first_batches(0) == list(range(6, 18))
    assert first_batches(2) == list(range(6, 18))


def test_asset_has_model_metrics_and_card(tmp_path):
    class Saved(nn.Module):
        def save_pretrained(self, folder, half):
            (folder / "model.safetensors").write_text(f"half={half}")

    card = {
        "title": "A codec",
        "description": "What it is.",
        "steps": 7,
        "metrics": {"loss": 0.512345, "perplexity": [1.5, 2]},
    }
    folder = write_asset(tmp_path / "asset", Saved(), card)
    assert (folder / "model.safetensors").read_text() == "half=True"
    assert json.loads((folder / "metrics.json").read_text()) == {"steps": 7, "metrics": card["metrics"]}
    readme = (folder / "README.md").read_text()
    assert readme.startswith("# A codec\n\nWhat it is.\n")
    assert "| steps | 7 |" in readme
    assert "| loss | 0.5123 |" in readme
    assert "| perplexity | 1.5, 2 |" in readme


def test_a_disk_that_becomes_full_ends_the_fit_with_one_line_and_keeps_the_checkpoint(tmp_path):
    class Filling(Toy):
        def on_save_checkpoint(self, checkpoint):
            if self.global_step == 10:
                checkpoint["large"] = torch.zeros(10**6)

    with full_disk(2 * 10**6), pytest.raises(ValueError, match="last.ckpt") as caught:
        fit(Filling(), tmp_path)
    text = str(caught.value)
    assert f"'{tmp_path / 'last.ckpt'}' cannot be written" in text and "\n" not in text
    assert "GiB free" in text and text.endswith("then resume from last.ckpt: make base")
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 5
    resumed = Toy()
    fit(resumed, tmp_path)
    assert resumed.seen[0] == 2 * 5
