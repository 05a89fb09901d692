"""A language model that is sharded over two processes computes the same as a whole one."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from qd.models.musicgen import MusicGen

WORKER = Path(__file__).with_name("sharded_ranks.py")


def test_two_processes_with_sharded_weights_compute_the_same_as_one(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "model")
    ranks = [subprocess.Popen([sys.executable, str(WORKER), str(rank), str(tmp_path)]) for rank in (0, 1)]
    assert [rank.wait(timeout=120) for rank in ranks] == [0, 0]
    first, second = (torch.load(tmp_path / f"rank{rank}.pt") for rank in (0, 1))
    music = MusicGen.load(tiny_model)
    alone = runpy.run_path(str(WORKER))["look"](music, slice(None))
    torch.testing.assert_close(torch.cat([first["logits"], second["logits"]]), alone["logits"])
    assert first["gradients"].keys() == alone["gradients"].keys()
    assert second["gradients"] == {}  # its memory is spared
    for name, gradient in alone["gradients"].items():
        torch.testing.assert_close(first["gradients"][name], gradient, rtol=1e-4, atol=1e-7)
    for seen in (first, second):
        assert seen["norm"].item() == pytest.approx(alone["norm"].item(), rel=1e-4)
        assert torch.equal(seen["codes"], alone["codes"])
        assert seen["fingerprint"] == alone["fingerprint"]
        assert seen["recut"]
    weights = sum(weight.numel() for weight in music.lm.parameters())
    assert first["held"] + second["held"] == weights
    assert abs(first["held"] - second["held"]) < 0.1 * weights
    saved = MusicGen.load(tmp_path / "saved").lm.state_dict()
    torch.testing.assert_close(saved, music.lm.state_dict(), rtol=0, atol=0)
