"""The memory formulas against real models."""

from __future__ import annotations

import re

import pytest
from transformers import MusicgenDecoderConfig, MusicgenForCausalLM

from experiments.memory_formula import SHAPES, Shape, check, run_bytes


def test_parameters_are_those_of_the_librarys_decoder():
    config = MusicgenDecoderConfig(hidden_size=64, num_hidden_layers=3, ffn_dim=256, num_attention_heads=4)
    real = sum(p.numel() for p in MusicgenForCausalLM(config).parameters() if p.requires_grad)
    assert Shape(3, 64).parameters == pytest.approx(real, rel=0.02)


def test_activations_are_within_a_factor_of_two_of_a_real_pass():
    assert 0.5 < float(re.search(r"ratio (\S+)", check()).group(1)) < 2


def test_sharding_and_adapters_save_memory():
    ddp, fsdp, lora = (run_bytes(SHAPES["large"], 10, way, ranks=8, rows=8) for way in ("ddp", "fsdp", "lora"))
    assert fsdp < ddp and lora < ddp
