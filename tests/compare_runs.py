"""Compares the results of two runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator


def checkpoint(run: Path) -> dict[str, Any]:
    return torch.load(run / "last.ckpt", weights_only=True)


def points(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "points.jsonl").read_text().splitlines()]


def scalars(run: Path) -> dict[str, list[float]]:
    events = EventAccumulator(str(run))
    events.Reload()
    tags = [tag for tag in events.Tags()["scalars"] if tag.startswith("train/") and "seconds" not in tag]
    return {tag: [event.value for event in events.Scalars(tag)] for tag in tags}


def assert_same_run(one: Path, two: Path, measured_at: Sequence[int] = (0, 2, 4)) -> None:
    """Compares losses, gradient norms, AdamW's moments, weights, baseline and points."""
    assert scalars(one).keys() == scalars(two).keys() >= {"train/loss", "train/baseline", "train/grad_norm"}
    for tag, values in scalars(one).items():
        assert values == pytest.approx(scalars(two)[tag], rel=1e-3, abs=1e-5), tag
    assert_same_weights(one, two)
    assert [point["step"] for point in points(one)] == [point["step"] for point in points(two)] == list(measured_at)
    for mine, theirs in zip(points(one), points(two), strict=True):
        measured = {key: value for key, value in mine.items() if isinstance(value, float) and key != "seconds"}
        assert {"quality", "diversity", "diversity_lo", "vendi", "entropy"} <= measured.keys()
        assert measured == pytest.approx({key: theirs[key] for key in measured}, rel=1e-3, abs=1e-5)


def assert_same_weights(one: Path, two: Path) -> None:
    """Compares weights and AdamW's moments."""
    first, second = checkpoint(one), checkpoint(two)
    assert first["state_dict"].keys() == second["state_dict"].keys()
    for name, tensor in first["state_dict"].items():
        torch.testing.assert_close(second["state_dict"][name], tensor, rtol=1e-3, atol=1e-5)
    moments, moments_ = (state["optimizer_states"][0]["state"] for state in (first, second))
    for parameter, state in moments.items():
        torch.testing.assert_close(moments_[parameter]["exp_avg"], state["exp_avg"], rtol=1e-3, atol=1e-6)


def assert_same_steps(one: Path, two: Path) -> None:
    """Compares prompts and codes of every rollout, and the baselines after it, bit by bit."""
    first, second = ([torch.load(file) for file in sorted(run.parent.glob("seen-*.pt"))] for run in (one, two))
    assert (len(first), len(second)) == (1, 2)
    rollouts, theirs = (
        {key: codes for rank in ranks for key, codes in rank["codes"].items()} for ranks in (first, second)
    )
    assert sum(len(rank["codes"]) for rank in second) == len(rollouts)  # no rank draws what the other has drawn
    assert rollouts.keys() == theirs.keys()
    for key, codes in rollouts.items():
        assert torch.equal(theirs[key], codes), key
    for step, baseline in first[0]["baseline"].items():
        assert baseline["total"] != 0
        for rank in second:
            torch.testing.assert_close(rank["baseline"][step], baseline, rtol=1e-5, atol=1e-7)


def files(run: Path) -> list[str]:
    """File names of the run and its step folders; those of TensorBoard without their variable part."""
    return sorted(str(path.relative_to(run)).split(".tfevents")[0] for path in run.rglob("*"))
