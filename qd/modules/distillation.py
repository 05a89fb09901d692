"""Diversity-rewarded distillation of classifier-free guidance: Section 2 of the paper as one training step.

Left out of textbook policy gradients, and why: no importance ratios and no clipping, because every rollout is used
once, by the weights that sampled it; no KL penalty to the initial model, because distilling the guided one is the
objective.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.utils import clip_grad_norm_
from torch.optim import AdamW, Optimizer

from qd.audio.resample import resample
from qd.config.train import TrainConfig
from qd.data.prompts import PromptBatch
from qd.models.condition import Condition
from qd.models.delay import delay, delayed_steps
from qd.models.embedders.loading import Embedder
from qd.models.musicgen import MusicGen
from qd.models.sampling.sampler import Sampler, counter_uniforms
from qd.modules.gradient_diagnostics import compare_gradients
from qd.modules.partial_checkpoint import PartialCheckpointModule
from qd.modules.rollout import Rollout, RolloutStats
from qd.modules.schedules import scheduled, warmup
from qd.objectives.baselines import Baseline
from qd.objectives.distillation import distillation_loss, score_tokens
from qd.objectives.diversity import pairwise_dissimilarity
from qd.objectives.guidance import apply_guidance
from qd.objectives.policy_gradient import policy_gradient_objective, sample_rewards, shuffle_advantages
from qd.runs.collective import gather_rows, gradient_norm
from qd.runs.devices import resolve_device
from qd.runs.step_record import StepRecord, timed

DIAGNOSTICS_EVERY = 50
"""Optimiser steps between two measurements of the policy gradient's signal and noise."""


class DiversityDistillation(PartialCheckpointModule):
    """Trains a MusicGen to sound like its guided self (KL) while the samples of a prompt differ (β · policy gradient).

    The loss is −QD = KL − β·J, both terms summed over a sequence's tokens and divided by their number: β keeps its
    meaning at one clip length, and the learning rate does not depend on the length. Across lengths β is not comparable,
    because the summed KL grows with the clip and the reward does not.

    Args:
        music: the model; its language model is trained in place, and frozen as it is now it is the teacher.
        embedder: judges how alike two samples sound.
        baseline: what is subtracted from the rewards.
        config: of the run.

    Attributes:
        beta: diversity coefficient of this step, set by ``BetaSchedule``.
        metrics: numbers of the last optimiser step.
        latest: judgement of the last micro-batch.
    """

    TRAINED = ("music.lm.", "baseline.")

    def __init__(self, music: MusicGen, embedder: Embedder, baseline: Baseline, config: TrainConfig) -> None:
        super().__init__()
        self.config = config
        self.music = music
        self.teacher = music.lm.frozen(getattr(torch, config.model.dtype))
        if config.trainer.precision == "bf16-mixed" and resolve_device(config.trainer.device).type == "cpu":
            music.lm.use_plain_attention()
        self.embedder = embedder.requires_grad_(False).eval()
        self.baseline = baseline
        self.sampler = Sampler(music.lm)
        self.beta = config.beta
        self.metrics: dict[str, float] = {}
        self.latest: RolloutStats | None = None
        self.record = StepRecord()
        self._judged: list[RolloutStats] = []
        self._encoded_negative: Condition | None = None

    def configure_model(self) -> None:
        """Under FSDP each rank keeps its share of student, teacher and value head; what else is frozen stays whole."""
        if self.device_mesh is None:
            return
        mesh = self.device_mesh["data_parallel"]
        self.music.lm.shard(mesh)
        self.teacher.shard(mesh)
        for layer in self.baseline.children():
            fully_shard(layer, mesh=mesh)

    def training_step(self, batch: PromptBatch, batch_idx: int) -> Tensor:
        """One micro-batch: B = P·N sequences of Q codebooks and T frames, S = T+Q−1 delayed steps, V tokens."""
        objective, temperature = self.config.objective, self.config.rollout.temperature
        rollout = self.rollout(batch)  # codes (B, Q, T), no gradient
        student = self.student_states(rollout), self.music.lm.heads  # (B, S, D), from states to logits (B, Q, S, V)
        teacher = self.teacher_states(rollout), self.teacher.heads  # guided (Eq. 1), no gradient

        kl, log_probs = score_tokens(student, teacher, rollout.delayed, rollout.mask, temperature)  # (B, Q, S) each
        loss = distillation_loss(kl, log_probs, rollout.mask, objective.exact_kl_gradient)  # Eq. 2

        audio = self.decode(rollout)  # (B, samples)
        embeddings = self.embed(audio).unflatten(0, (len(rollout.prompts), -1))  # (P, N, embedding width)
        rewards = sample_rewards(pairwise_dissimilarity(embeddings), objective.estimator)  # (P, N)
        baseline = self.baseline(rewards, rollout.prompts, rollout.features, gather_rows)  # (P, N)
        advantages = rewards - baseline.detach()
        if objective.shuffle_advantages:
            advantages = shuffle_advantages(advantages)
        if self.config.beta > 0:
            sequence_log_probs = log_probs.sum(dim=(1, 2)).view_as(rewards)  # log p(y), (P, N)
            loss = (
                loss - self.beta * policy_gradient_objective(sequence_log_probs, advantages) / rollout.tokens
            )  # Eq. 4
        loss = loss + self.baseline.loss(rewards, rollout.features)

        self._note(rollout, loss, kl, rewards, baseline, advantages)
        if self.global_step % DIAGNOSTICS_EVERY == 0:
            with self.record.stage("diagnostics", self.device):
                compared = (self.music.lm, student[0], rollout, teacher, advantages, temperature, self.beta)
                self.record.add(**compare_gradients(*compared))
        return loss

    @timed("rollout")
    @torch.no_grad()
    def rollout(self, batch: PromptBatch) -> Rollout:
        """N sequences a prompt by the student as it is now; the tokens are a function of (seed, step, global row)."""
        lm, settings = self.music.lm, self.config.rollout
        n, frames = settings.samples_per_prompt, self.music.frames(settings.seconds)
        encoded = self.music.condition(batch.prompts)
        condition = encoded.repeat_interleave(n)
        rows = [position * n + sample for position in batch.positions for sample in range(n)]
        steps = delayed_steps(lm.codebooks, frames, lm.channels)
        uniforms = counter_uniforms(self.config.seed, self.global_step, rows, lm.codebooks, steps)
        uniforms = uniforms.to(self.device, non_blocking=True)
        drawn = self.sampler.sample(
            condition, frames, temperature=settings.temperature, uniforms=lambda step: uniforms[..., step]
        )
        delayed, mask = delay(drawn.codes, lm.pad, lm.channels)
        lengths = encoded.mask.sum(dim=1, keepdim=True).clamp_min(1)
        features = (encoded.states * encoded.mask[..., None]).sum(dim=1) / lengths
        return Rollout(batch.prompts, features, condition, drawn.codes, delayed, mask, drawn.log_probs, drawn.entropy)

    @timed("student")
    def student_states(self, rollout: Rollout) -> Tensor:
        """Hidden states (B, S, D) of the sampled sequences, with gradient, without guidance."""
        return self.music.lm.hidden_states(rollout.delayed, rollout.condition)

    @timed("teacher")
    @torch.no_grad()
    def teacher_states(self, rollout: Rollout) -> Tensor:
        """Guided hidden states (B, S, D) of the frozen initial model, from one pass over conditional and negative rows.

        The heads are linear without bias, so guiding the hidden states guides the logits at half the cost.
        """
        scale = self.config.guidance.scale
        if scale == 1:
            return self.teacher.hidden_states(rollout.delayed, rollout.condition)
        both = rollout.condition.cat(self._negative(len(rollout.condition)))
        return apply_guidance(*self.teacher.hidden_states(rollout.delayed.repeat(2, 1, 1), both).chunk(2), scale)

    @timed("decode")
    @torch.no_grad()
    def decode(self, rollout: Rollout) -> Tensor:
        """Audio (B, samples), in float32 whatever the precision of training: the codec ends in an inverse transform."""
        with torch.autocast(self.device.type, enabled=False):
            return self.music.decode(rollout.codes)

    @timed("embed")
    @torch.no_grad()
    def embed(self, audio: Tensor) -> Tensor:
        """Unit-norm embeddings (B, embedding width)."""
        with torch.autocast(self.device.type, enabled=False):
            return self.embedder(resample(audio, self.music.sample_rate, self.embedder.sample_rate))

    def _negative(self, batch: int) -> Condition:
        prompt = self.config.guidance.negative_prompt
        if prompt is None:
            return self.music.null_condition(batch)
        if self._encoded_negative is None:  # once: the text encoder is frozen
            self._encoded_negative = self.music.condition([prompt])
        return self._encoded_negative.to(self.device).repeat_interleave(batch)

    def _note(
        self, rollout: Rollout, loss: Tensor, kl: Tensor, rewards: Tensor, baseline: Tensor, advantages: Tensor
    ) -> None:
        summed = kl.detach().sum(dim=(1, 2)).view_as(rewards)
        self.latest = RolloutStats(rollout.prompts, summed, rewards)
        self._judged.append(self.latest)
        self.record.add(
            loss=loss,
            kl=summed.mean(),
            kl_per_token=summed.mean() / rollout.tokens,
            reward=rewards.mean(),
            baseline=baseline.mean(),
            advantage_std=advantages.std(),
            entropy=rollout.entropy.mean(),
        )

    def forget(self) -> None:
        """Drops what the micro-batches of an unfinished step have left."""
        self._judged.clear()
        self.record = StepRecord()

    def on_train_batch_start(self, batch: PromptBatch, batch_idx: int) -> None:
        self.record.timing = self._logged

    def on_before_backward(self, loss: Tensor) -> None:
        self._backward_start = self.record.now(self.device)

    def on_after_backward(self) -> None:
        self.record.took("backward", self._backward_start, self.device)

    @property
    def _logged(self) -> bool:
        """Whether the numbers of this optimiser step go to the loggers."""
        done = self.global_step + 1  # with this one
        return self.global_step % DIAGNOSTICS_EVERY == 0 or done % self.config.trainer.log_every == 0

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """All micro-batches of the step are in: the baseline learns their rewards, the step's numbers are logged."""
        rewards = torch.cat([judged.rewards for judged in self._judged])
        prompts = [prompt for judged in self._judged for prompt in judged.prompts]
        self.baseline.update(rewards, prompts, gather_rows)
        self.record.add(grad_norm=gradient_norm(self.music.lm.parameters()))
        self.metrics = self.record.summary() | {"beta": self.beta}
        self.forget()
        for logger in self.loggers if self._logged else []:
            logger.log_metrics({f"train/{k}": v for k, v in self.metrics.items()}, self.global_step + 1)

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clips the policy's gradient alone: how wrong a value head is must not change how far the policy moves."""
        if gradient_clip_val:
            clip_grad_norm_(self.music.lm.parameters(), gradient_clip_val)

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW on the decoder, its projection and the baseline's parameters; a linear warm-up if one is asked for."""
        settings = self.config.optimizer
        trained = [p for p in (*self.music.lm.parameters(), *self.baseline.parameters()) if p.requires_grad]
        betas = (settings.beta1, settings.beta2)
        optimizer = AdamW(trained, settings.learning_rate, betas=betas, weight_decay=settings.weight_decay)
        return scheduled(optimizer, lambda step: warmup(step, settings.warmup_steps))

    def frozen_parts(self) -> dict[str, nn.Module]:
        parts = {"text encoder": self.music.text_encoder, "codec": self.music.codec, "reward embedder": self.embedder}
        return {"teacher": self.teacher, **parts}
