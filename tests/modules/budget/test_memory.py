"""The formula of a run's memory against the tensors that autograd stores, and its parts."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from qd.config.train import TrainConfig
from qd.models.condition import Condition
from qd.models.language_model import LanguageModel
from qd.modules.budget.memory import (
    ACTIVATION_BYTES,
    CHECKPOINTED_BYTES,
    SCORED_COPIES,
    first_measurement_bytes,
    measurement_bytes,
    needed_bytes,
    rollout_bytes,
    update_bytes,
)
from qd.modules.budget.size import RunSize, run_size
from tests.modules.tiny_runs import build

Config = Callable[..., TrainConfig]


def stored_bytes(layers: int, precision: str, checkpointing: bool) -> tuple[int, int]:
    """Returns the bytes that a pass over 4 × 50 tokens stores of a decoder of width 32: activations, weights."""
    build_model = runpy.run_path(str(Path(__file__).parents[2] / "real_checkpoint.py"))["build_real_model"]
    lm = LanguageModel(build_model(layers=layers).decoder)
    if checkpointing:
        lm.checkpoint_layers()
    delayed, stored = torch.zeros(4, lm.codebooks, 50, dtype=torch.long), {}
    weights = {p.untyped_storage().data_ptr() for p in lm.parameters()}

    def store(tensor: torch.Tensor) -> torch.Tensor:
        stored[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(store, lambda tensor: tensor)
    with hooks, torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
        hidden = lm.hidden_states(delayed, Condition.null(4, lm.decoder.config.hidden_size))
    matrices = [t for t in stored.values() if t.ndim == 2 and t.shape[0] in (32, 128) and t.shape[1] in (32, 128)]
    rounded = sum(t.untyped_storage().nbytes() for t in matrices if t.dtype == torch.bfloat16)
    whole = sum(t.untyped_storage().nbytes() for pointer, t in stored.items() if pointer not in weights)
    del hidden
    return whole - rounded, rounded


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_layer_stores_the_bytes_of_the_formula(precision: str) -> None:
    """Measures the difference between four and two layers, with a feed-forward layer four times as wide."""
    for checkpointing, expected in ((False, ACTIVATION_BYTES[precision]), (True, CHECKPOINTED_BYTES)):
        (two, rounded), (four, rounded_) = (stored_bytes(layers, precision, checkpointing) for layers in (2, 4))
        assert (four - two) / 2 / (4 * 50 * 32) == pytest.approx(expected, rel=0.06)
        if not checkpointing:
            matrices = 2 * 14 * 32**2  # in two layers; those for the text need no gradient without a projection
            assert rounded_ - rounded == (2 * matrices if precision == "bf16-mixed" else 0)


def test_the_parts_of_a_tiny_run(tiny_config: Config) -> None:
    whole, lora = tiny_config(), tiny_config("model.lora={rank: 2}")
    module, adapted = build(whole), build(lora)
    trained = sum(p.numel() for p in module.music.lm.parameters())
    adapters = sum(p.numel() for p in adapted.music.lm.parameters() if p.requires_grad)
    size, small = run_size(module, whole), run_size(adapted, lora)
    parts, less = needed_bytes(size), needed_bytes(small)
    assert parts["optimiser"] == 12 * trained and less["optimiser"] == 12 * adapters
    assert parts["weights"] == sum(p.numel() * p.element_size() for p in module.parameters())
    assert parts["weights"] - less["weights"] == 4 * (trained - adapters)  # no second copy of the base
    layers = adapted.music.lm.plain.decoder.model.decoder.layers
    matrices = sum(layer.weight.numel() for layer in layers.modules() if isinstance(layer, torch.nn.Linear))
    assert small.adapted == matrices and size.adapted == 0
    assert rollout_bytes(small)["base copy"] == 4 * matrices
    checkpointed = run_size(module, tiny_config("model.gradient_checkpointing=true"))
    assert update_bytes(checkpointed)["activations"] <= 1.06 * update_bytes(size)["activations"]  # there is one layer
    half = run_size(module, tiny_config("data.batch_size=8", "data.micro_batch_size=8"))
    assert 2 * update_bytes(half)["activations"] == update_bytes(size)["activations"]
    assert update_bytes(size)["rounded"] == 0 < update_bytes(replace(size, precision="bf16-mixed"))["rounded"]


def test_fsdp_shards_weights_gradients_and_moments_and_gathers_the_student_for_its_rollout(
    tiny_config: Config,
) -> None:
    module = build(tiny_config())
    alone = run_size(module, tiny_config())
    four = run_size(module, tiny_config("trainer.devices=4", "trainer.strategy=fsdp", "data.batch_size=64"))
    assert four == replace(alone, shards=4)
    frozen = alone.frozen_bytes
    assert 0 < frozen == sum(p.numel() * 4 for p in module.parameters()) - 2 * 4 * alone.student
    assert needed_bytes(four)["weights"] - frozen == (needed_bytes(alone)["weights"] - frozen) / 4
    assert needed_bytes(four)["optimiser"] == needed_bytes(alone)["optimiser"] / 4
    gathered = sum(rollout_bytes(four).values()) - sum(rollout_bytes(alone).values())
    assert gathered == 4 * alone.student and update_bytes(four) == update_bytes(alone)


def test_logits_count_the_sequences_that_are_scored_at_once() -> None:
    """Four sequences of 10 s are scored at once, whatever the micro-batch; longer sequences are scored one by one."""
    size = RunSize(1, 8, 4, 2048, student=0, rows=32, steps=503)
    sequence = 4 * 503 * 2048
    assert update_bytes(size)["logits"] == 4 * SCORED_COPIES * 4 * sequence
    assert update_bytes(replace(size, rows=2))["logits"] == 4 * SCORED_COPIES * 2 * sequence
    assert update_bytes(replace(size, steps=5030))["logits"] == 4 * SCORED_COPIES * 10 * sequence


def test_a_measurement_of_many_rows_needs_more_than_a_step(tiny_config: Config) -> None:
    """A guided teacher decodes two rows for each sequence and has no optimiser. All ranks share the prompts."""
    settings = ["evaluation.n_prompts=50", "evaluation.n_samples=4", "trainer.devices=2", "data.batch_size=32"]
    config = tiny_config(*settings, "evaluation.eval_batch_size=200")
    module = build(config)
    size = run_size(module, config)
    assert (size.measured, size.guided) == (100, True)
    assert run_size(module, tiny_config(*settings, "evaluation.eval_batch_size=7")).measured == 7
    row = size.steps * 2 * size.width * 4
    assert measurement_bytes(size)["cache"] == 100 * row == first_measurement_bytes(size)["cache"] / 2
    plain = replace(size, guided=False)
    assert first_measurement_bytes(plain)["cache"] == 100 * row
    half = replace(size, teacher_bytes=size.teacher_bytes // 2)
    assert first_measurement_bytes(half)["cache"] == 100 * row
    many = replace(size, measured=10_000)
    assert needed_bytes(many) == {
        "weights": 4 * size.student + size.teacher_bytes + size.frozen_bytes,
        "first measurement": 20_000 * row,
    }
    unguided = needed_bytes(replace(many, guided=False))
    assert unguided["measurement"] == 10_000 * row and unguided["optimiser"] == 12 * size.trained
    assert "micro-batch" in needed_bytes(size)
    shared = replace(many, shards=4)
    assert first_measurement_bytes(shared)["gathered"] == size.teacher_bytes
    assert measurement_bytes(shared)["gathered"] == 4 * size.student


def test_the_measurement_of_a_student_with_adapters_copies_the_base(tiny_config: Config) -> None:
    config = tiny_config("model.lora={rank: 2}")
    size = run_size(build(config), config)
    assert measurement_bytes(size)["base copy"] == 4 * size.adapted > 0
    assert first_measurement_bytes(size)["cache"] == 2 * measurement_bytes(size)["cache"]  # the base is float32
