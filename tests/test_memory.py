"""The formula of a run's memory beside what autograd keeps, and what is said where it does not fit."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import qd.memory
from qd.config_schema import TrainConfig
from qd.memory import GIB, KEPT_VALUES, check_memory, free_bytes, needed_bytes
from qd.models.condition import Condition
from qd.models.embedder import load_embedder
from qd.models.language_model import LanguageModel
from qd.models.policy import load_policy
from qd.modules.distillation import DiversityDistillation
from qd.objectives.baselines import build_baseline

Config = Callable[..., TrainConfig]
CPU, GPU = torch.device("cpu"), torch.device("cuda")


def build(config: TrainConfig) -> DiversityDistillation:
    return DiversityDistillation(
        load_policy(config.model),
        load_embedder(config.reward.embedder),
        build_baseline("moving_average", decay=0.9, feature_width=24),
        config,
    )


def test_a_layer_keeps_as_many_values_as_the_formula_says() -> None:
    """The difference between four layers and two, of a decoder whose feed-forward layer is four times as wide."""
    build_model = runpy.run_path(str(Path(__file__).with_name("real_checkpoint.py")))["build_real_model"]
    sizes = []
    for layers in (2, 4):
        lm = LanguageModel(build_model(layers=layers).decoder)
        delayed = torch.zeros(4, lm.codebooks, 50, dtype=torch.long)
        condition = Condition.null(4, lm.decoder.config.hidden_size)
        weights = {p.untyped_storage().data_ptr() for p in lm.parameters()}
        kept: dict[int, int] = {}

        def keep(tensor, kept=kept, weights=weights):
            if (pointer := tensor.untyped_storage().data_ptr()) not in weights:
                kept[pointer] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            hidden = lm.hidden_states(delayed, condition)
        sizes.append(sum(kept.values()))
        del hidden
    values = (sizes[1] - sizes[0]) / 2 / 4 / (4 * 50 * 32)
    assert values == pytest.approx(KEPT_VALUES, rel=0.15)


def test_the_parts_of_the_tiny_run(tiny_config: Config) -> None:
    whole, lora = tiny_config(), tiny_config("model.lora={rank: 2}")
    module, adapted = build(whole), build(lora)
    trained = sum(p.numel() for p in module.music.lm.parameters())
    adapters = sum(p.numel() for p in adapted.music.lm.parameters() if p.requires_grad)
    parts, small = needed_bytes(module, whole), needed_bytes(adapted, lora)
    assert parts["optimiser"] == 12 * trained and small["optimiser"] == 12 * adapters
    assert parts["weights"] - small["weights"] == 4 * (trained - adapters)  # no second copy of the base
    checkpointed = tiny_config("model.gradient_checkpointing=true")
    assert needed_bytes(module, checkpointed)["micro-batch"] <= 1.06 * parts["micro-batch"]  # of one layer
    half = tiny_config("data.batch_size=8", "data.micro_batch_size=8")
    assert 2 * needed_bytes(module, half)["micro-batch"] == parts["micro-batch"]


def test_what_does_not_fit_is_told_beside_what_is_free(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config()
    module = build(config)
    for free in (None, 10 * GIB):
        monkeypatch.setattr(qd.memory, "free_bytes", lambda device, free=free: free)
        check_memory(module, config, GPU)
    monkeypatch.setattr(qd.memory, "free_bytes", lambda device: 1000)
    with pytest.raises(ValueError) as caught:
        check_memory(module, config, GPU)
    told = str(caught.value)
    assert "cuda has 0.0 GiB free, and the run needs about" in told
    for advice in (
        "data.micro_batch_size=8",
        "model.gradient_checkpointing=true",
        "model.lora",
        "model.dtype=bfloat16",
    ):
        assert advice in told
    assert "weights" in told
    with pytest.raises(ValueError) as caught:
        check_memory(module, config, CPU)
    assert "weights " not in str(caught.value).split("(")[1]  # they are in memory already


def test_this_machine_has_some_memory_free() -> None:
    free = free_bytes(CPU)
    assert free is None or free > 2**20
    assert free_bytes(torch.device("mps")) is None
