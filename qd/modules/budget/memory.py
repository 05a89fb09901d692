"""Memory that training and sampling need, by formula, and a check before any weights reach the device."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from qd.models.musicgen import MusicGen
from qd.modules.budget.size import RunSize, run_size, sampling_size, stored_bytes
from qd.objectives.distillation import rows_at_once

if TYPE_CHECKING:
    from qd.config.train import TrainConfig
    from qd.modules.distillation import DiversityDistillation

ACTIVATION_BYTES = {"32-true": 80, "bf16-mixed": 50}
"""Bytes that a decoder layer stores for the backward pass, for each token and each value of the model's width, where
the feed-forward layer is four times as wide. In float32 20 values of 4 bytes; in mixed precision 3 values of the
residual stream and 19 of 2 bytes. A test counts them."""

CHECKPOINTED_BYTES = 4
"""The same with activation checkpointing, which stores only the input of a layer."""

SCORED_COPIES = 8
"""Float32 values for each scored logit: logits, softmaxes and gradients of student and teacher. Measured by
``experiments/scoring_memory.py``."""

GIB = 2**30


def needed_bytes(size: RunSize) -> dict[str, float]:
    """Returns the bytes that a rank needs at least, by purpose.

    The result describes the moment that needs most, of three: a training step, a measurement of the student, and the
    first measurement, that of the teacher, which runs before the optimiser has any state. Attention is assumed to be
    fused, so that it stores no matrix of scores.

    - ``weights``: student, teacher, text encoder, codec and embedder. FSDP shares those of student and teacher.
    - ``optimiser``: gradient and AdamW's two moments of each trained weight, 12 bytes. FSDP shares them.
    - ``micro-batch``: the larger of rollout and update, which do not overlap.
    - ``measurement``, ``first measurement``: see :func:`measurement_bytes` and :func:`first_measurement_bytes`.

    Args:
        size: Size of the run.
    """
    weights = {"weights": (4 * size.student + size.teacher_bytes) / size.shards + size.frozen_bytes}
    trained = weights | {"optimiser": 12 * size.trained / size.shards}
    moments = (
        trained | {"micro-batch": max(sum(rollout_bytes(size).values()), sum(update_bytes(size).values()))},
        trained | {"measurement": sum(measurement_bytes(size).values())},
        weights | {"first measurement": sum(first_measurement_bytes(size).values())},
    )
    return max(moments, key=lambda parts: sum(parts.values()))


def rollout_bytes(size: RunSize) -> dict[str, float]:
    """Returns the bytes that a rank needs while it samples tokens, by purpose.

    - ``cache``: keys and values, 2 · layers · width for each token.
    - ``gathered``: under FSDP the whole student, in addition to the rank's share.
    - ``rounded``: the weight matrices in the precision of mixed products.
    - ``base copy``: with LoRA a copy of the base weights while the adapters are merged into them.
    """
    return {
        "cache": _cache(size, size.rows, size.product_bytes),
        "gathered": 4 * size.student if size.shards > 1 else 0,
        "rounded": _rounded(size),
        "base copy": 4 * size.adapted,
    }


def update_bytes(size: RunSize) -> dict[str, float]:
    """Returns the bytes that a rank needs between the student's forward and backward passes, by purpose.

    - ``activations``: layers · width · ``ACTIVATION_BYTES`` for each token. With activation checkpointing
      ``CHECKPOINTED_BYTES`` for each layer, plus ``ACTIVATION_BYTES`` for one layer.
    - ``logits``: those of the sequences that are scored at once.
    - ``rounded``: as in the rollout, whole under FSDP too. With LoRA and checkpointing nothing, because autocast caches
      only the rounded copies of trained weights.

    The result leaves out the diagnostics, which run once in 50 steps: the gradients on the heads for each prompt, about
    a hundredth of the whole.
    """
    stored = ACTIVATION_BYTES[size.precision]
    per_token = size.layers * CHECKPOINTED_BYTES + stored if size.checkpointing else size.layers * stored
    sequence = size.codebooks * size.steps * size.vocabulary
    return {
        "activations": size.rows * size.steps * size.width * per_token,
        "logits": 4 * SCORED_COPIES * min(size.rows, rows_at_once(sequence)) * sequence,
        "rounded": 0 if size.adapted and size.checkpointing else _rounded(size),
    }


def measurement_bytes(size: RunSize) -> dict[str, float]:
    """Returns the bytes that a rank needs while it measures the student: as in the rollout, but always in float32."""
    return {
        "cache": _cache(size, size.measured, 4),
        "gathered": 4 * size.student if size.shards > 1 else 0,
        "base copy": 4 * size.adapted,
    }


def first_measurement_bytes(size: RunSize) -> dict[str, float]:
    """Returns the same for the teacher: twice the rows with guidance, and the precision of the teacher's weights."""
    return {
        "cache": _cache(size, (2 if size.guided else 1) * size.measured, size.teacher_number_bytes),
        "gathered": size.teacher_bytes if size.shards > 1 else 0,
    }


def check_memory(module: DiversityDistillation, config: TrainConfig, device: torch.device) -> None:
    """Refuses a run that does not fit into the device's memory. Does nothing where the free memory is unknown.

    Args:
        module: The module of the run, before it is on the device.
        config: The configuration of the run.
        device: Device of the run.

    Raises:
        ValueError: If the run does not fit. The message gives the needed memory by purpose, the free memory, and the
            settings to lower.
    """
    size = run_size(module, config)
    needed = needed_bytes(size)
    _check(needed, device, "the run", _advice(config, size.measured, step="micro-batch" in needed))


def check_sampling_memory(
    music: MusicGen, device: torch.device, *, rows: int, seconds: float, guided: bool, lower: Sequence[str]
) -> None:
    """Refuses sampling that does not fit into the device's memory. Does nothing where the free memory is unknown.

    The needed memory is a lower bound: it leaves out keys and values of the text, the sampler's layout of the weights,
    and what decodes, embeds and scores the audio.

    Args:
        music: The loaded model, before it is on the device.
        device: Device to sample on.
        rows: Clips to sample at once.
        seconds: Length of a clip.
        guided: Whether there is guidance.
        lower: Settings to lower, besides guidance and the model's size.

    Raises:
        ValueError: If sampling does not fit, with the needed memory by purpose, the free memory, and what to lower; or
            if a clip of that length has no frame.
    """
    size = sampling_size(music, rows, seconds, guided)
    parts = {"weights": stored_bytes(music.parameters()), "cache of keys and values": rollout_bytes(size)["cache"]}
    advice = [*lower, *(["no guidance"] if guided else []), "a smaller model"]
    _check(parts, device, f"sampling {rows} clips of {seconds:g} s at once", advice)


def free_bytes(device: torch.device) -> int | None:
    """Returns the free bytes of the device, with PyTorch's unused reserve; None where they are unknown."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    meminfo = Path("/proc/meminfo")
    if device.type != "cpu" or not meminfo.is_file():
        return None
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    return int(lines["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in lines else None


def _check(parts: dict[str, float], device: torch.device, what: str, advice: Sequence[str]) -> None:
    free = free_bytes(device)
    if free is None:
        return
    if device.type == "cpu":
        parts = {name: size for name, size in parts.items() if name != "weights"}  # these are in memory already
    if sum(parts.values()) > free:
        listed = ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts.items())
        raise ValueError(
            f"{device} has {free / GIB:.1f} GiB free, and {what} needs about {sum(parts.values()) / GIB:.1f} GiB "
            f"({listed}); to need less: {'; '.join(advice)}"
        )


def _cache(size: RunSize, rows: int, number_bytes: int) -> int:
    """Returns the bytes of keys and values."""
    return rows * size.steps * 2 * size.layers * size.width * number_bytes


def _rounded(size: RunSize) -> int:
    return 2 * size.matrix_weights if size.precision == "bf16-mixed" else 0


def _advice(config: TrainConfig, measured: int, step: bool) -> list[str]:
    """Returns what to lower: for a training ``step``, or for a measurement of ``measured`` sequences at once."""
    n, micro = config.rollout.samples_per_prompt, config.data.micro_batch_size
    alone = config.model.lora or config.trainer.sharded or config.trainer.ranks == 1
    return [
        *([f"evaluation.eval_batch_size={measured // 2}"] if measured > 1 and not step else []),
        *([f"data.micro_batch_size={max(n, micro // 2 // n * n)}"] if micro > n and step else []),
        *(["model.gradient_checkpointing=true"] if step and not config.model.gradient_checkpointing else []),
        *([] if alone else ["trainer.strategy=fsdp"]),
        *([] if config.model.lora or config.trainer.sharded else ["model.lora.rank=16 (trains only adapters)"]),
        *([] if config.model.lora or config.model.dtype == "bfloat16" else ["model.dtype=bfloat16"]),
        *(["trainer.precision=bf16-mixed"] if step and config.trainer.precision != "bf16-mixed" else []),
        "a shorter rollout.seconds",
        "a smaller model",
    ]
