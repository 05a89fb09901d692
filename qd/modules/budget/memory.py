"""Whether training or sampling fits into the memory of its device, by formula, before anything is put there."""

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

KEPT_BYTES = {"32-true": 80, "bf16-mixed": 50}
"""What a decoder layer keeps for the backward pass, a token and a value of the model's width, where the feed-forward
layer is four times as wide: 20 values of 4 bytes, or, mixed, 3 of the residual stream and 19 of 2 (a test counts them).
"""

CHECKPOINTED_BYTES = 4
"""The same where each layer's activations are computed again: its input alone."""

SCORED_COPIES = 8
"""Float32 values for each logit that is scored: logits, softmaxes and gradients of student and teacher; as measured by
``experiments/scoring_memory.py``."""

GIB = 2**30


def needed_bytes(size: RunSize) -> dict[str, float]:
    """Bytes that a rank needs at least, by what they are for; with fused attention, which keeps no matrix of scores.

    Of three moments the one that needs most: a step, a measurement after it, and the first measurement, of the teacher,
    which comes before there is anything of the optimiser.

    weights: of student, teacher, text encoder, codec and embedder. optimiser: gradient and AdamW's two moments of each
    trained weight, 12 bytes. Both are shared out under FSDP, but for what is frozen for good. micro-batch: of rollout
    and update the one that needs more, for the one's is free again when the other comes.
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
    """While tokens are drawn.

    cache: keys and values, 2 L w a token. gathered: under FSDP the whole student beside its shares. rounded: the
    matrices in the precision of mixed products. put aside: the base's weights while adapters are merged into them.
    """
    return {
        "cache": _cache(size, size.rows, size.product_bytes),
        "gathered": 4 * size.student if size.shards > 1 else 0,
        "rounded": _rounded(size),
        "put aside": 4 * size.adapted,
    }


def update_bytes(size: RunSize) -> dict[str, float]:
    """Between the student's forward pass and its backward pass.

    activations: layers · width · KEPT_BYTES a token; with checkpoints CHECKPOINTED_BYTES a layer, KEPT_BYTES of one.
    logits: of the sequences that are scored at once. rounded: as in the rollout, whole under FSDP too; of adapters with
    checkpoints nothing is kept, as autocast keeps what is trained alone. Left out: what the diagnostics of one step in
    50 hold of each prompt, the gradient on the heads, which is about a hundredth of all that is needed.
    """
    kept = KEPT_BYTES[size.precision]
    per_token = size.layers * CHECKPOINTED_BYTES + kept if size.checkpointing else size.layers * kept
    sequence = size.codebooks * size.steps * size.vocabulary
    return {
        "activations": size.rows * size.steps * size.width * per_token,
        "logits": 4 * SCORED_COPIES * min(size.rows, rows_at_once(sequence)) * sequence,
        "rounded": 0 if size.adapted and size.checkpointing else _rounded(size),
    }


def measurement_bytes(size: RunSize) -> dict[str, float]:
    """While the student is measured: as in the rollout, of other sequences, and in float32 whatever the precision."""
    return {
        "cache": _cache(size, size.measured, 4),
        "gathered": 4 * size.student if size.shards > 1 else 0,
        "put aside": 4 * size.adapted,
    }


def first_measurement_bytes(size: RunSize) -> dict[str, float]:
    """The same of the teacher, with twice the rows where it has guidance, in the precision of its weights."""
    return {
        "cache": _cache(size, (2 if size.guided else 1) * size.measured, size.teacher_number_bytes),
        "gathered": size.teacher_bytes if size.shards > 1 else 0,
    }


def check_memory(module: DiversityDistillation, config: TrainConfig, device: torch.device) -> None:
    """Refuses a run that the device cannot hold; where its free memory is unknown, nothing is refused.

    Raises:
        ValueError: what is needed by formula beside what is free, part by part, and what to lower.
    """
    size = run_size(module, config)
    needed = needed_bytes(size)
    _check(needed, device, "the run", _advice(config, size.measured, of_step="micro-batch" in needed))


def check_sampling_memory(
    music: MusicGen, device: torch.device, *, rows: int, seconds: float, guided: bool, lower: Sequence[str]
) -> None:
    """Refuses sampling that the device cannot hold; where its free memory is unknown, nothing is refused.

    A lower bound: neither the keys and values of the text, nor the sampler's layout of the weights, nor what decodes
    and hears the audio is counted.

    Args:
        music: loaded, and not yet put on the device.
        device: where it is to sample.
        rows: clips sampled at once. seconds: length of a clip. guided: whether there is guidance.
        lower: what the command can be told so that it needs less, beside no guidance and a smaller model.

    Raises:
        ValueError: what is needed by formula beside what is free, part by part, and what to lower; or a clip of that
            length has no frame.
    """
    size = sampling_size(music, rows, seconds, guided)
    parts = {"weights": stored_bytes(music.parameters()), "cache of keys and values": rollout_bytes(size)["cache"]}
    advice = [*lower, *(["no guidance"] if guided else []), "a smaller model"]
    _check(parts, device, f"sampling {rows} clips of {seconds:g} s at once", advice)


def free_bytes(device: torch.device) -> int | None:
    """Free memory of the device; None where it cannot be told. What PyTorch holds there and does not use is free."""
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
        parts = {name: size for name, size in parts.items() if name != "weights"}  # they are there already
    if sum(parts.values()) > free:
        listed = ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts.items())
        raise ValueError(
            f"{device} has {free / GIB:.1f} GiB free, and {what} needs about {sum(parts.values()) / GIB:.1f} GiB "
            f"({listed}); to need less: {'; '.join(advice)}"
        )


def _cache(size: RunSize, rows: int, number_bytes: int) -> int:
    """Of keys and values."""
    return rows * size.steps * 2 * size.layers * size.width * number_bytes


def _rounded(size: RunSize) -> int:
    return 2 * size.matrix_weights if size.precision == "bf16-mixed" else 0


def _advice(config: TrainConfig, measured: int, of_step: bool) -> list[str]:
    """What to lower where the ``measured`` sequences of a measurement do not fit, or a step does not."""
    n, micro = config.rollout.samples_per_prompt, config.data.micro_batch_size
    alone = config.model.lora or config.trainer.sharded or config.trainer.ranks == 1
    return [
        *([f"evaluation.eval_batch_size={measured // 2}"] if measured > 1 and not of_step else []),
        *([f"data.micro_batch_size={max(n, micro // 2 // n * n)}"] if micro > n and of_step else []),
        *(["model.gradient_checkpointing=true"] if of_step and not config.model.gradient_checkpointing else []),
        *([] if alone else ["trainer.strategy=fsdp"]),
        *([] if config.model.lora or config.trainer.sharded else ["model.lora.rank=16 (adapters alone are trained)"]),
        *([] if config.model.lora or config.model.dtype == "bfloat16" else ["model.dtype=bfloat16"]),
        *(["trainer.precision=bf16-mixed"] if of_step and config.trainer.precision != "bf16-mixed" else []),
        "a shorter rollout.seconds",
        "a smaller model",
    ]
