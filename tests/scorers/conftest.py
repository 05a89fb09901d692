"""Folders of random-weight models in the hub's format, and stand-ins for the packages that load them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from tests.scorers.stand_ins import MULAN_CONFIG, TARGETS, WIDTH, AesMultiOutput, MuQ, MuQMuLan, packages


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder with the models ``muq``, ``mulan`` and ``audiobox``; their packages can be imported."""
    for name, module in packages().items():
        monkeypatch.setitem(sys.modules, name, module)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = {"encoder_dim": WIDTH}
        MuQ(config).save_pretrained(tmp_path / "muq", config=config)
        MuQMuLan(MULAN_CONFIG).save_pretrained(tmp_path / "mulan", config=MULAN_CONFIG)
        AesMultiOutput(TARGETS).save_pretrained(tmp_path / "audiobox")
    return tmp_path


@pytest.fixture
def no_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes both packages impossible to import, even if they are installed."""
    for name in packages():
        monkeypatch.setitem(sys.modules, name, None)
