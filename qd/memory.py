"""Whether training or sampling fits into the memory of its device, by formula, before anything is put there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from qd.models.delay import delayed_steps
from qd.models.lora import AdaptedLanguageModel
from qd.models.musicgen import MusicGen
from qd.objectives.distillation import rows_at_once

if TYPE_CHECKING:
    from qd.config_schema import TrainConfig
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


@dataclass(frozen=True)
class RunSize:
    """The numbers that the memory and time of a training run, or of sampling alone, follow from.

    Attributes:
        layers, width: of the decoder.
        codebooks, vocabulary: Q and V of the codes.
        student: weights of the language model, all in float32; of LoRA, with the adapters.
        rows: sequences B of a micro-batch. steps: delayed decoding steps S of each.
        trained: those weights of the whole run that get a gradient.
        adapted: weights that a LoRA's adapters are merged into for each rollout; 0 is no LoRA.
        teacher_bytes: 0 where the frozen base is the teacher itself.
        frozen_bytes: of text encoder, codec and embedder.
        precision: of the products, as ``trainer.precision`` names it; ``bf16-true`` where all is stored in 16 bits.
        shards: ranks that share the weights out among them (FSDP); 1 where each has all.
        checkpointing: whether activations are computed again instead of being kept.
    """

    layers: int
    width: int
    codebooks: int
    vocabulary: int
    student: int
    rows: int
    steps: int
    trained: int = 0
    adapted: int = 0
    teacher_bytes: int = 0
    frozen_bytes: int = 0
    precision: str = "32-true"
    shards: int = 1
    checkpointing: bool = False

    @property
    def product_bytes(self) -> int:
        """Of a number in a product of matrices."""
        return 2 if self.precision in ("bf16-mixed", "bf16-true") else 4

    @property
    def head_weights(self) -> int:
        return self.codebooks * self.vocabulary * self.width

    @property
    def matrix_weights(self) -> int:
        """Of the student, without the embeddings of its tokens (V and the pad)."""
        return self.student - self.codebooks * (self.vocabulary + 1) * self.width


def run_size(module: DiversityDistillation, config: TrainConfig) -> RunSize:
    """Of a run whose module is built, its weights not yet shared out."""
    lm = module.music.lm
    policy = _bytes(lm.parameters())
    both = _bytes([*lm.parameters(), *module.teacher.parameters()])
    return replace(
        sampling_size(module.music, config.data.micro_batch_size, config.rollout.seconds, guided=False),
        trained=sum(p.numel() for p in module.parameters() if p.requires_grad),
        adapted=lm.adapted_weights if isinstance(lm, AdaptedLanguageModel) else 0,
        teacher_bytes=both - policy,
        frozen_bytes=_bytes(module.parameters()) - both,
        precision=config.trainer.precision,
        shards=config.trainer.ranks if config.trainer.sharded else 1,
        checkpointing=config.model.gradient_checkpointing,
    )


def needed_bytes(size: RunSize) -> dict[str, float]:
    """Bytes that a rank needs at least, by what they are for; with fused attention, which keeps no matrix of scores.

    weights: of student, teacher, text encoder, codec and embedder. optimiser: gradient and AdamW's two moments of each
    trained weight, 12 bytes. Both are shared out under FSDP, but for what is frozen for good. micro-batch: of rollout
    and update the one that needs more, for the one's is free again when the other comes.
    """
    return {
        "weights": (4 * size.student + size.teacher_bytes) / size.shards + size.frozen_bytes,
        "optimiser": 12 * size.trained / size.shards,
        "micro-batch": max(sum(rollout_bytes(size).values()), sum(update_bytes(size).values())),
    }


def rollout_bytes(size: RunSize) -> dict[str, float]:
    """While tokens are drawn.

    cache: keys and values, 2 L w a token. gathered: under FSDP the whole student beside its shares. rounded: the
    matrices in the precision of mixed products. put aside: the base's weights while adapters are merged into them.
    """
    return {
        "cache": size.rows * size.steps * 2 * size.layers * size.width * size.product_bytes,
        "gathered": 4 * size.student if size.shards > 1 else 0,
        "rounded": _rounded(size),
        "put aside": 4 * size.adapted,
    }


def update_bytes(size: RunSize) -> dict[str, float]:
    """Between the student's forward pass and its backward pass.

    activations: layers · width · KEPT_BYTES a token; with checkpoints CHECKPOINTED_BYTES a layer, KEPT_BYTES of one.
    logits: of the sequences that are scored at once. rounded: as in the rollout, whole under FSDP too; of adapters with
    checkpoints nothing is kept, as autocast keeps what is trained alone.
    """
    kept = KEPT_BYTES[size.precision]
    per_token = size.layers * CHECKPOINTED_BYTES + kept if size.checkpointing else size.layers * kept
    sequence = size.codebooks * size.steps * size.vocabulary
    return {
        "activations": size.rows * size.steps * size.width * per_token,
        "logits": 4 * SCORED_COPIES * min(size.rows, rows_at_once(sequence)) * sequence,
        "rounded": 0 if size.adapted and size.checkpointing else _rounded(size),
    }


def check_memory(module: DiversityDistillation, config: TrainConfig, device: torch.device) -> None:
    """Refuses a run that the device cannot hold; where its free memory is unknown, nothing is refused.

    Raises:
        ValueError: what is needed by formula beside what is free, part by part, and what to lower.
    """
    _check(needed_bytes(run_size(module, config)), device, "the run", _advice(config))


def sampling_size(music: MusicGen, rows: int, seconds: float, guided: bool) -> RunSize:
    """Of a batch of ``rows`` clips, each of ``seconds``; guidance decodes a negative row beside each."""
    lm, decoder = music.lm, music.lm.decoder.config
    return RunSize(
        layers=decoder.num_hidden_layers,
        width=decoder.hidden_size,
        codebooks=lm.codebooks,
        vocabulary=lm.codebook_size,
        student=sum(p.numel() for p in lm.parameters()),
        rows=2 * rows if guided else rows,
        steps=delayed_steps(lm.codebooks, music.frames(seconds), lm.channels),
        precision="32-true" if lm.decoder.dtype.itemsize == 4 else "bf16-true",
    )


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
    parts = {"weights": _bytes(music.parameters()), "cache of keys and values": rollout_bytes(size)["cache"]}
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


def _rounded(size: RunSize) -> int:
    return 2 * size.matrix_weights if size.precision == "bf16-mixed" else 0


def _bytes(weights: Iterable[nn.Parameter]) -> int:
    """What two modules share counts once."""
    return sum(p.numel() * p.element_size() for p in {id(p): p for p in weights}.values())


def _advice(config: TrainConfig) -> list[str]:
    n, micro = config.rollout.samples_per_prompt, config.data.micro_batch_size
    alone = config.model.lora or config.trainer.sharded or config.trainer.ranks == 1
    return [
        *([f"data.micro_batch_size={max(n, micro // 2 // n * n)}"] if micro > n else []),
        *([] if config.model.gradient_checkpointing else ["model.gradient_checkpointing=true"]),
        *([] if alone else ["trainer.strategy=fsdp"]),
        *([] if config.model.lora or config.trainer.sharded else ["model.lora.rank=16 (adapters alone are trained)"]),
        *([] if config.model.lora or config.model.dtype == "bfloat16" else ["model.dtype=bfloat16"]),
        *([] if config.trainer.precision == "bf16-mixed" else ["trainer.precision=bf16-mixed"]),
        "a shorter rollout.seconds",
        "a smaller model",
    ]
