"""The formula of a step's time against the operations that torch counts, and against loops over steps."""

from __future__ import annotations

import runpy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from qd.models.condition import Condition
from qd.models.language_model import LanguageModel
from qd.models.sampling import graphed_loop
from qd.models.sampling.graphed_loop import DevicePositionDecoder
from qd.modules.budget.size import RunSize
from qd.modules.budget.step_time import (
    LAUNCHES_A_LAYER,
    Rates,
    optimiser_bytes,
    rollout_seconds,
    step_seconds,
    student_operations,
    teacher_operations,
)

ROWS, STEPS, WIDTH, BOOKS, TOKENS = 4, 50, 32, 4, 2048
FAST = Rates(1e30, 1e30)


def build(layers: int = 2) -> tuple[LanguageModel, RunSize]:
    """Returns a decoder with the architecture of MusicGen, and its size."""
    build_model = runpy.run_path(str(Path(__file__).parents[2] / "real_checkpoint.py"))["build_real_model"]
    lm = LanguageModel(build_model(layers=layers).decoder)
    weights = sum(p.numel() for p in lm.parameters())
    return lm, RunSize(layers, WIDTH, BOOKS, TOKENS, weights, ROWS, STEPS, trained=weights)


def counted(lm: LanguageModel, backward: bool) -> int:
    """Returns the operations of a pass with plain attention over all S tokens and a text of one token."""
    lm.use_plain_attention()
    delayed = torch.zeros(ROWS, BOOKS, STEPS, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(backward):
        logits = lm.logits(delayed, Condition.null(ROWS, WIDTH))
        if backward:
            logits.sum().backward()
    return counter.get_total_flops()


def test_the_formula_gives_the_operations_that_torch_counts():
    lm, size = build()
    unmasked = ROWS * STEPS * 2 * size.layers * WIDTH * STEPS  # the half of the attention that the causal mask skips
    assert teacher_operations(size, guided=False) + unmasked == pytest.approx(counted(lm, False), rel=0.02)
    assert student_operations(size) + 3 * unmasked == pytest.approx(counted(lm, True), rel=0.02)


def test_guidance_doubles_the_layers_and_not_the_heads():
    _, size = build()
    heads = 2 * ROWS * STEPS * size.head_weights
    layers = teacher_operations(size, guided=False) - heads
    assert teacher_operations(size) == pytest.approx(2 * layers + heads)
    recomputed = student_operations(replace(size, checkpointing=True)) - student_operations(size)
    assert recomputed == pytest.approx(layers)
    long = replace(size, rows=400)  # scored in chunks, with another forward pass of the heads
    assert teacher_operations(long, guided=False) == pytest.approx(100 * (layers + 2 * heads))
    assert student_operations(long) == pytest.approx(100 * (3 * layers + 4 * heads))


def test_a_rollout_takes_the_longer_of_two_limits_and_the_kernels():
    lm, size = build()
    layers = lm.decoder.model.decoder.layers
    read_once_a_prompt = ("encoder_attn.k_proj", "encoder_attn.v_proj")
    matrices = [m for n, m in layers.named_modules() if hasattr(m, "weight") and not n.endswith(read_once_a_prompt)]
    weights = sum(m.weight.numel() for m in (*matrices, *lm.decoder.lm_heads) if m.weight.ndim == 2)
    operations = sum(2 * ROWS * (weights + 2 * size.layers * WIDTH * step) for step in range(STEPS))
    read = sum(4 * (weights + 2 * size.layers * WIDTH * ROWS * step) for step in range(STEPS))
    assert rollout_seconds(size, replace(FAST, operations=1e9)) == pytest.approx(operations / 1e9, rel=0.02)
    assert rollout_seconds(size, replace(FAST, bandwidth=1e9)) == pytest.approx(read / 1e9, rel=0.02)
    launches = STEPS * size.layers * LAUNCHES_A_LAYER
    assert rollout_seconds(size, replace(FAST, launch=1e-3)) == pytest.approx(launches * 1e-3)
    every = Rates(1e9, 1e9, 1e-3)
    assert rollout_seconds(size, every) == pytest.approx(max(operations, read) / 1e9 + launches * 1e-3, rel=0.02)
    halves = replace(size, precision="bf16-mixed")
    assert rollout_seconds(halves, replace(FAST, bandwidth=1e9)) == pytest.approx(read / 2e9, rel=0.02)


def test_a_layer_launches_the_kernels_of_the_formula(monkeypatch):
    """Counts the difference between four layers and two."""
    launched = []
    for name in ("add_norm", "attend_cached", "attend_text", "product_gelu", "product_parts"):
        kernel = getattr(graphed_loop, name)
        monkeypatch.setattr(graphed_loop, name, lambda *args, kernel=kernel: launched.append(1) or kernel(*args))
    counts = []
    for layers in (2, 4):
        lm, _ = build(layers)
        launched.clear()
        with torch.no_grad():
            decoder = DevicePositionDecoder(lm, Condition.null(ROWS, WIDTH), STEPS)
            decoder.advance_at(torch.zeros(ROWS, BOOKS, dtype=torch.long), torch.zeros(1, dtype=torch.long))
        counts.append(len(launched))
    assert (counts[1] - counts[0]) / 2 == LAUNCHES_A_LAYER


def test_a_step_has_its_micro_batches_and_one_optimiser_update():
    _, size = build()
    rates = Rates(1e9, 1e9)
    one, four = step_seconds(size, rates), step_seconds(size, rates, micro_batches=4)
    assert one["teacher"] == teacher_operations(size) / 1e9 and one["student"] == student_operations(size) / 1e9
    assert one["optimiser"] == four["optimiser"] == optimiser_bytes(size) / 1e9
    assert all(four[name] == 4 * one[name] for name in ("rollout", "teacher", "student"))
    assert optimiser_bytes(replace(size, shards=4)) == optimiser_bytes(size) / 4
