"""The numbers that the memory and the time of a run follow from."""

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
        measured: sequences that a measurement samples at once.
        guided: whether the teacher is measured with guidance too, which decodes a negative row beside each.
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
        """Of a number in a product of matrices."""
        return 2 if self.precision in ("bf16-mixed", "bf16-true") else 4

    @property
    def teacher_number_bytes(self) -> int:
        """Of one of the teacher's weights, and of what it caches; the base of a LoRA is float32."""
        return self.teacher_bytes // self.student or 4

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


def stored_bytes(weights: Iterable[nn.Parameter]) -> int:
    """Of the weights; what two modules share counts once."""
    return sum(p.numel() * p.element_size() for p in {id(p): p for p in weights}.values())
