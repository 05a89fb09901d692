"""The numbers from which the memory and the time of a run follow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from torch import nn

from qd.models.delay import delayed_steps
from qd.models.lora import AdaptedLanguageModel
from qd.models.musicgen import MusicGen

if TYPE_CHECKING:
    from qd.config.train import TrainConfig
    from qd.modules.distillation import DiversityDistillation


@dataclass(frozen=True)
class RunSize:
    """The numbers that determine the memory and the time of a training run, or of sampling without training.

    Attributes:
        layers: Layers of the decoder.
        width: Width of the decoder.
        codebooks: Codebooks Q of the codes.
        vocabulary: Vocabulary V of a codebook.
        student: Weights of the language model, with adapters if there are any; all in float32.
        rows: Sequences B of a micro-batch.
        steps: Delayed decoding steps S of a sequence.
        trained: Weights with a gradient, in the whole run.
        adapted: Weights that LoRA adapters are merged into for each rollout; 0 without LoRA.
        teacher_bytes: Bytes of the teacher; 0 where the frozen base is the teacher.
        frozen_bytes: Bytes of text encoder, codec and embedder.
        precision: Precision of matrix products, as in ``trainer.precision``; ``bf16-true`` if all weights have 16 bits.
        shards: Ranks that share the weights under FSDP; 1 if each rank has all of them.
        checkpointing: Whether activations are recomputed instead of stored.
        measured: Sequences that a measurement samples at once.
        guided: Whether the teacher is also measured with guidance, which decodes a negative row for each sequence.
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
    measured: int = 0
    guided: bool = False

    @property
    def product_bytes(self) -> int:
        """Bytes of a number in a matrix product."""
        return 2 if self.precision in ("bf16-mixed", "bf16-true") else 4

    @property
    def teacher_number_bytes(self) -> int:
        """Bytes of one of the teacher's weights and cached values. The base of a LoRA is float32."""
        return self.teacher_bytes // self.student or 4

    @property
    def head_weights(self) -> int:
        """Weights of the output heads."""
        return self.codebooks * self.vocabulary * self.width

    @property
    def matrix_weights(self) -> int:
        """Weights of the student without its token embeddings, which have V tokens and the pad."""
        return self.student - self.codebooks * (self.vocabulary + 1) * self.width


def run_size(module: DiversityDistillation, config: TrainConfig) -> RunSize:
    """Returns the size of a run whose module is built but not yet sharded."""
    lm = module.music.lm
    policy = stored_bytes(lm.parameters())
    both = stored_bytes([*lm.parameters(), *module.teacher.parameters()])
    evaluation, ranks = config.evaluation, config.trainer.ranks
    sampled = evaluation.protocol_for(config.rollout.seconds).rows(ranks)
    return replace(
        sampling_size(module.music, config.data.micro_batch_size, config.rollout.seconds, guided=False),
        trained=sum(p.numel() for p in module.parameters() if p.requires_grad),
        adapted=lm.adapted_weights if isinstance(lm, AdaptedLanguageModel) else 0,
        teacher_bytes=both - policy,
        frozen_bytes=stored_bytes(module.parameters()) - both,
        precision=config.trainer.precision,
        shards=ranks if config.trainer.sharded else 1,
        checkpointing=config.model.gradient_checkpointing,
        measured=min(evaluation.eval_batch_size, sampled),
        guided=config.guidance.scale != 1,
    )


def sampling_size(music: MusicGen, rows: int, seconds: float, guided: bool) -> RunSize:
    """Returns the size of a batch of ``rows`` clips of ``seconds`` each. Guidance adds a negative row for each clip."""
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


def stored_bytes(weights: Iterable[nn.Parameter]) -> int:
    """Returns the bytes of the weights. Weights that two modules share count once."""
    return sum(p.numel() * p.element_size() for p in {id(p): p for p in weights}.values())
