"""The cost tables; their formulas are tested with the package."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from transformers import MusicgenDecoderConfig, MusicgenForCausalLM

from experiments.scaling_table import SHAPES, WAYS, check, codec_operations, memory_table, musicgen, time_table
from qd.modules.budget.memory import needed_bytes
from qd.modules.budget.step_time import Rates


def test_the_number_of_weights_is_that_of_the_library():
    config = MusicgenDecoderConfig(hidden_size=64, num_hidden_layers=3, ffn_dim=256, num_attention_heads=4)
    decoder = sum(p.numel() for p in MusicgenForCausalLM(config).parameters() if p.requires_grad)
    assert musicgen(3, 64, 10, 8).student == pytest.approx(decoder + 769 * 64, rel=0.005)


def test_sharding_adapters_and_checkpoints_save_memory():
    ddp, *others = (sum(needed_bytes(musicgen(*SHAPES["large"], 10, 8, way, 8)).values()) for way in WAYS)
    assert len(others) == 3 and all(other < ddp for other in others)


def test_the_tables_have_a_row_for_each_model_and_clip():
    tables = memory_table(8, 8, 32), time_table(8, 8, 128, Rates(4e14, 3e12, 5e-6))
    for table in tables:
        header, _, *rows = table.splitlines()
        assert len(rows) == 6 and all(row.count("|") == header.count("|") for row in rows)
        assert [row.split("|")[1].strip() for row in rows] == [name for name in SHAPES for _ in range(2)]


def test_the_codec_needs_less_than_a_tenth_of_the_small_models_update():
    """6 operations per weight and token; a second has 50 tokens."""
    assert 0 < codec_operations() < 0.1 * 6 * musicgen(*SHAPES["small"], 10, 1).student * 50


@pytest.mark.slow
def test_the_formula_is_compared_with_real_steps(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[2] / "experiments"))
    ratios = [float(ratio) for ratio in re.findall(r"ratio ([\d.]+)", check(repeats=1))]
    assert len(ratios) == 4 and all(0 < ratio < 100 for ratio in ratios)
