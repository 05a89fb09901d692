"""Diversity-rewarded distillation of classifier-free guidance: Section 2 of the paper as one training step.

Two parts of common policy-gradient algorithms are missing on purpose. There are no importance ratios and no clipping of
them, because each rollout is used once, by the weights that sampled it. There is no KL penalty to the initial model,
because the distillation loss already is a KL divergence to its guided version.
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
from qd.objectives.distillation import StatesAndHeads, distillation_loss, score_tokens
from qd.objectives.diversity import pairwise_dissimilarity
from qd.objectives.guidance import apply_guidance
from qd.objectives.policy_gradient import policy_gradient_objective, sample_rewards, shuffle_advantages
from qd.runs.collective import gather_rows, gradient_norm
from qd.runs.devices import resolve_device
from qd.runs.step_record import StepRecord, timed

DIAGNOSTICS_EVERY = 50
"""Optimiser steps between two measurements of the signal and the noise of the policy gradient."""


class DiversityDistillation(PartialCheckpointModule):
    """Trains a MusicGen to match its own guided predictions (KL) and to give diverse samples (β · policy gradient).

    The loss is −QD(θ) of Eq. 5, KL − β·J, summed over a sequence's tokens and divided by their number. So the learning
    rate does not depend on the clip length. β does: the summed KL grows with the length, the reward does not.

    Args:
        music: The model. Its language model is trained in place; a frozen copy of its initial state is the teacher.
        embedder: Embeds audio for the diversity reward.
        baseline: Baseline that is subtracted from the rewards.
        config: The configuration of the run.

    Attributes:
        beta: Diversity coefficient β of this step, set by ``BetaSchedule``.
        metrics: Numbers of the last optimiser step, by name.
        latest: KL and rewards of the last micro-batch.
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
        self._rollout_stats: list[RolloutStats] = []
        self._negative_condition: Condition | None = None

    def configure_model(self) -> None:
        """Under FSDP shards student, teacher and value head over the ranks. Other frozen parts stay whole."""
        if self.device_mesh is None:
            return
        mesh = self.device_mesh["data_parallel"]
        self.music.lm.shard(mesh)
        self.teacher.shard(mesh)
        for layer in self.baseline.children():
            fully_shard(layer, mesh=mesh)

    def training_step(self, batch: PromptBatch, batch_idx: int) -> Tensor:
        """Returns the loss of one micro-batch, KL − β · policy gradient (−QD(θ) of Eq. 5, per token).

        Shapes: P prompts with N samples each are B = P·N sequences of Q codebooks and T frames. They have S = T+Q−1
        delayed decoding steps and a vocabulary of V tokens. D is the width of the decoder.
        """
        objective, temperature = self.config.objective, self.config.rollout.temperature
        rollout = self.rollout(batch)  # codes (B, Q, T), without gradient

        # codes → logits of the student and of the guided teacher → KL
        student = self.student_states(rollout), self.music.lm.heads  # states (B, S, D), heads to logits (B, Q, S, V)
        teacher = self.teacher_states(rollout), self.teacher.heads  # guided states (Eq. 1), without gradient
        kl, log_probs = score_tokens(student, teacher, rollout.delayed, rollout.mask, temperature)  # (B, Q, S) each
        loss = distillation_loss(kl, log_probs, rollout.mask, objective.exact_kl_gradient)  # −Q(θ), Eq. 2

        # codes → audio → embeddings → diversity reward → advantages
        audio = self.decode(rollout)  # (B, samples)
        embeddings = self.embed(audio).unflatten(0, (len(rollout.prompts), -1))  # (P, N, embedding width)
        rewards = sample_rewards(pairwise_dissimilarity(embeddings), objective.estimator)  # (P, N)
        baseline = self.baseline(rewards, rollout.prompts, rollout.features, gather_rows)  # (P, N)
        advantages = self.advantages(rewards, baseline)  # (P, N)

        # KL − β · policy gradient
        if self.config.beta > 0:
            sequence_log_probs = log_probs.sum(dim=(1, 2)).view_as(rewards)  # log p(y), (P, N)
            policy_gradient = policy_gradient_objective(sequence_log_probs, advantages)  # Eq. 4
            loss = loss - self.beta * policy_gradient / rollout.tokens  # Eq. 5
        loss = loss + self.baseline.loss(rewards, rollout.features)  # 0 without a value head

        self._record_statistics(rollout, loss, kl, rewards, baseline, advantages)
        if self.global_step % DIAGNOSTICS_EVERY == 0:
            self._record_gradients(rollout, student[0], teacher, advantages)
        return loss

    @timed("rollout")
    @torch.no_grad()
    def rollout(self, batch: PromptBatch) -> Rollout:
        """Samples N sequences for each prompt from the student. Tokens are a function of (seed, step, global row)."""
        lm, settings = self.music.lm, self.config.rollout
        n, frames = settings.samples_per_prompt, self.music.frames(settings.seconds)
        encoded = self.music.condition(batch.prompts)
        condition = encoded.repeat_interleave(n)
        rows = [position * n + sample for position in batch.positions for sample in range(n)]
        steps = delayed_steps(lm.codebooks, frames, lm.channels)
        uniforms = counter_uniforms(self.config.seed, self.global_step, rows, lm.codebooks, steps)
        uniforms = uniforms.to(self.device, non_blocking=True)
        sampled = self.sampler.sample(
            condition, frames, temperature=settings.temperature, uniforms=lambda step: uniforms[..., step]
        )
        delayed, mask = delay(sampled.codes, lm.pad, lm.channels)
        lengths = encoded.mask.sum(dim=1, keepdim=True).clamp_min(1)
        features = (encoded.states * encoded.mask[..., None]).sum(dim=1) / lengths
        return Rollout(
            batch.prompts, features, condition, sampled.codes, delayed, mask, sampled.log_probs, sampled.entropy
        )

    @timed("student")
    def student_states(self, rollout: Rollout) -> Tensor:
        """Returns the student's hidden states (B, S, D) of the sampled sequences, with gradient, without guidance."""
        return self.music.lm.hidden_states(rollout.delayed, rollout.condition)

    @timed("teacher")
    @torch.no_grad()
    def teacher_states(self, rollout: Rollout) -> Tensor:
        """Returns guided hidden states (B, S, D) of the frozen initial model.

        One pass scores conditional and negative rows. The heads are linear, so guided states give guided logits.
        """
        scale = self.config.guidance.scale
        if scale == 1:
            return self.teacher.hidden_states(rollout.delayed, rollout.condition)
        both = rollout.condition.cat(self._negative(len(rollout.condition)))
        return apply_guidance(*self.teacher.hidden_states(rollout.delayed.repeat(2, 1, 1), both).chunk(2), scale)

    @timed("decode")
    @torch.no_grad()
    def decode(self, rollout: Rollout) -> Tensor:
        """Returns audio (B, samples), in float32 even in mixed precision: the codec ends in an inverse transform."""
        with torch.autocast(self.device.type, enabled=False):
            return self.music.decode(rollout.codes)

    @timed("embed")
    @torch.no_grad()
    def embed(self, audio: Tensor) -> Tensor:
        """Returns unit-norm embeddings (B, embedding width)."""
        with torch.autocast(self.device.type, enabled=False):
            return self.embedder(resample(audio, self.music.sample_rate, self.embedder.sample_rate))

    def advantages(self, rewards: Tensor, baseline: Tensor) -> Tensor:
        """Returns rewards minus baseline (P, N), in the control experiment those of another prompt."""
        advantages = rewards - baseline.detach()
        return shuffle_advantages(advantages) if self.config.objective.shuffle_advantages else advantages

    def _negative(self, batch: int) -> Condition:
        prompt = self.config.guidance.negative_prompt
        if prompt is None:
            return self.music.null_condition(batch)
        if self._negative_condition is None:  # encoded once, because the text encoder is frozen
            self._negative_condition = self.music.condition([prompt])
        return self._negative_condition.to(self.device).repeat_interleave(batch)

    def _record_statistics(
        self, rollout: Rollout, loss: Tensor, kl: Tensor, rewards: Tensor, baseline: Tensor, advantages: Tensor
    ) -> None:
        sequence_kl = kl.detach().sum(dim=(1, 2)).view_as(rewards)
        self.latest = RolloutStats(rollout.prompts, sequence_kl, rewards)
        self._rollout_stats.append(self.latest)
        self.record.add(
            loss=loss,
            kl=sequence_kl.mean(),
            kl_per_token=sequence_kl.mean() / rollout.tokens,
            reward=rewards.mean(),
            baseline=baseline.mean(),
            advantage_std=advantages.std(),
            entropy=rollout.entropy.mean(),
        )

    def _record_gradients(self, rollout: Rollout, hidden: Tensor, teacher: StatesAndHeads, advantages: Tensor) -> None:
        lm, temperature = self.music.lm, self.config.rollout.temperature
        with self.record.stage("diagnostics", self.device):
            self.record.add(**compare_gradients(lm, hidden, rollout, teacher, advantages, temperature, self.beta))

    def reset_records(self) -> None:
        """Discards the records of the micro-batches of the current step."""
        self._rollout_stats.clear()
        self.record = StepRecord()

    def on_train_batch_start(self, batch: PromptBatch, batch_idx: int) -> None:
        self.record.timing = self._logs_this_step

    def on_before_backward(self, loss: Tensor) -> None:
        self._backward_start = self.record.now(self.device)

    def on_after_backward(self) -> None:
        self.record.took("backward", self._backward_start, self.device)

    @property
    def _logs_this_step(self) -> bool:
        """Whether the loggers get the numbers of this optimiser step."""
        done = self.global_step + 1  # steps done after this one
        return self.global_step % DIAGNOSTICS_EVERY == 0 or done % self.config.trainer.log_every == 0

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Updates the baseline with the rewards of all micro-batches, and logs the numbers of the step."""
        rewards = torch.cat([stats.rewards for stats in self._rollout_stats])
        prompts = [prompt for stats in self._rollout_stats for prompt in stats.prompts]
        self.baseline.update(rewards, prompts, gather_rows)
        self.record.add(grad_norm=gradient_norm(self.music.lm.parameters()))
        self.metrics = self.record.summary() | {"beta": self.beta}
        self.reset_records()
        for logger in self.loggers if self._logs_this_step else []:
            logger.log_metrics({f"train/{k}": v for k, v in self.metrics.items()}, self.global_step + 1)

    def configure_gradient_clipping(
        self, optimizer: Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clips only the gradient of the language model, so that the value head's error does not change its step."""
        if gradient_clip_val:
            clip_grad_norm_(self.music.lm.parameters(), gradient_clip_val)

    def configure_optimizers(self) -> dict[str, Any]:
        """Returns AdamW over decoder, projection and baseline, with a linear warm-up if the config has one."""
        settings = self.config.optimizer
        trained = [p for p in (*self.music.lm.parameters(), *self.baseline.parameters()) if p.requires_grad]
        betas = (settings.beta1, settings.beta2)
        optimizer = AdamW(trained, settings.learning_rate, betas=betas, weight_decay=settings.weight_decay)
        return scheduled(optimizer, lambda step: warmup(step, settings.warmup_steps))

    def frozen_parts(self) -> dict[str, nn.Module]:
        parts = {"text encoder": self.music.text_encoder, "codec": self.music.codec, "reward embedder": self.embedder}
        return {"teacher": self.teacher, **parts}
