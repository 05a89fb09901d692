from __future__ import annotations

import csv
import importlib
import sys
from pathlib import Path

from omegaconf import OmegaConf

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = ROOT / "docs" / "larger-beta"


def numbers(path: Path) -> list[tuple[str, ...]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [tuple(row[key] for key in ("claim", "mean", "lo", "hi", "verdict")) for row in csv.DictReader(file)]


def test_the_published_numbers_follow_from_the_published_results(tmp_path, monkeypatch, capsys):
    plan = OmegaConf.load(ROOT / "configs" / "reproduction" / "larger-beta.yaml")
    plan.folder = str(PUBLISHED)
    OmegaConf.save(plan, tmp_path / "larger-beta.yaml")
    monkeypatch.syspath_prepend(str(ROOT / "experiments"))
    written = tmp_path / "claims.csv"
    monkeypatch.setattr(sys, "argv", ["claims.py", str(tmp_path / "larger-beta.yaml"), "--csv", str(written)])
    assert importlib.import_module("claims").main() == 0
    assert numbers(written) == numbers(PUBLISHED / "claims.csv") and len(numbers(written)) > 40
    assert "| 6. " in capsys.readouterr().out
