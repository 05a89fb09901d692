"""Whether a run fits into the memory of its device, by formula, before anything is put there."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from qd.config_schema import TrainConfig
from qd.models.delay import delayed_steps
from qd.models.language_model import LanguageModel
from qd.modules.distillation import DiversityDistillation

KEPT_VALUES = 20
"""Values of the model's width that a decoder layer keeps for the backward pass, a token: what autograd holds in float32
where the feed-forward layer is four times as wide (a test counts them)."""

CHECKPOINTED_VALUES = 1
"""The same where each layer's activations are computed again: its input alone."""

GIB = 2**30


def check_memory(module: DiversityDistillation, config: TrainConfig, device: torch.device) -> None:
    """Refuses a run that the device cannot hold; where its free memory is unknown, nothing is refused.

    Raises:
        ValueError: what is needed by formula beside what is free, part by part, and what to lower.
    """
    free = free_bytes(device)
    if free is None:
        return
    parts = needed_bytes(module, config)
    if device.type == "cpu":
        parts.pop("weights")  # they are there already
    if sum(parts.values()) > free:
        listed = ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts.items())
        raise ValueError(
            f"{device} has {free / GIB:.1f} GiB free, and the run needs about {sum(parts.values()) / GIB:.1f} GiB "
            f"({listed}); to need less: {'; '.join(_advice(config))}"
        )


def needed_bytes(module: DiversityDistillation, config: TrainConfig) -> dict[str, float]:
    """Bytes that a rank needs at least, by what they are for; with fused attention, which keeps no matrix of scores.

    weights: of student, teacher, text encoder, codec and embedder. optimiser: gradient and AdamW's two moments of each
    trained weight, 12 bytes. activations: layers · width · KEPT_VALUES a token, in the precision of training, and with
    checkpoints CHECKPOINTED_VALUES a layer and KEPT_VALUES of one. cache: keys and values of the rollout; it is free
    again when the activations come, so the larger of the two counts.
    """
    lm, rows = module.music.lm, config.data.micro_batch_size
    tokens = rows * delayed_steps(lm.codebooks, module.music.frames(config.rollout.seconds), lm.channels)
    decoder = lm.decoder.config
    width = 2 if config.trainer.precision == "bf16-mixed" else 4
    values = _kept_values(lm, config.model.gradient_checkpointing) * decoder.hidden_size
    cache = 2 * decoder.num_hidden_layers * decoder.hidden_size
    return {
        "weights": _bytes(module),
        "optimiser": 12 * sum(p.numel() for p in module.parameters() if p.requires_grad),
        "micro-batch": tokens * width * max(values, cache),
    }


def free_bytes(device: torch.device) -> int | None:
    """Free memory of the device; None where it cannot be told."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    meminfo = Path("/proc/meminfo")
    if device.type != "cpu" or not meminfo.is_file():
        return None
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in lines else None


def _kept_values(lm: LanguageModel, checkpointed: bool) -> int:
    layers = lm.decoder.config.num_hidden_layers
    return layers * CHECKPOINTED_VALUES + KEPT_VALUES if checkpointed else layers * KEPT_VALUES


def _bytes(module: nn.Module) -> int:
    """Of all weights; what two modules share counts once."""
    return sum(p.numel() * p.element_size() for p in module.parameters())


def _advice(config: TrainConfig) -> list[str]:
    n, micro = config.rollout.samples_per_prompt, config.data.micro_batch_size
    return [
        *([f"data.micro_batch_size={max(n, micro // 2 // n * n)}"] if micro > n else []),
        *([] if config.model.gradient_checkpointing else ["model.gradient_checkpointing=true"]),
        *([] if config.model.lora else ["model.lora.rank=16 (adapters alone are trained)"]),
        *([] if config.model.lora or config.model.dtype == "bfloat16" else ["model.dtype=bfloat16"]),
        *([] if config.trainer.precision == "bf16-mixed" else ["trainer.precision=bf16-mixed"]),
        "a shorter rollout.seconds",
        "a smaller model",
    ]
