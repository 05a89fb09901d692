"""The training step against slow references, and what two optimiser steps and thirty do to a tiny model."""

from __future__ import annotations

import runpy
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor

from qd.callbacks.beta_schedule import BetaSchedule
from qd.config.train import TrainConfig
from qd.data.prompts import PromptBatch, PromptDataModule
from qd.models.embedders.loading import load_embedder
from qd.models.musicgen import MusicGen
from qd.modules.distillation import DiversityDistillation
from qd.objectives.baselines import build_baseline
from qd.objectives.distillation import token_log_probs

PROMPTS = ["a calm piano piece", "fast drums", "strings, slow and sad", "an 8-bit melody"]
BATCH = PromptBatch(PROMPTS, [4, 5, 6, 7])

Config = Callable[..., TrainConfig]


def build(config: TrainConfig) -> DiversityDistillation:
    music = MusicGen.load(config.model.name)
    width = music.text_encoder.config.hidden_size
    baseline = build_baseline(config.objective.baseline, decay=0.9, feature_width=width)
    return DiversityDistillation(music, load_embedder(config.reward.embedder), baseline, config)


def gradients(module: DiversityDistillation) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in module.music.lm.named_parameters() if p.grad is not None}


def fit(module: DiversityDistillation, config: TrainConfig, *callbacks: pl.Callback, steps: int) -> None:
    data = PromptDataModule(
        config.data.prompts,
        batch_size=config.data.batch_size,
        micro_batch_size=config.data.micro_batch_size,
        samples_per_prompt=config.rollout.samples_per_prompt,
        seed=config.seed,
    )
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=steps,
        accumulate_grad_batches=data.accumulation(1),
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(module, datamodule=data)


def test_sampled_log_probs_equal_rescored_ones(tiny_config: Config) -> None:
    module = build(tiny_config())
    rollout = module.rollout(BATCH)
    logits = module.music.lm.heads(module.student_states(rollout))
    rescored = token_log_probs(logits, rollout.delayed, rollout.mask, 0.99)
    torch.testing.assert_close(rescored, rollout.log_probs, atol=1e-4, rtol=1e-4)
    assert rescored[:, rollout.mask].abs().min() > 0  # every token has been scored


def test_rollout_is_a_function_of_seed_step_and_global_row(tiny_config: Config) -> None:
    module = build(tiny_config())
    codes = module.rollout(BATCH).codes
    assert torch.equal(codes, module.rollout(BATCH).codes)
    last_prompt = module.rollout(PromptBatch(PROMPTS[3:], [7])).codes
    assert torch.equal(codes[-4:], last_prompt)
    assert not torch.equal(codes[:4], codes[4:8])
    other_seed = build(tiny_config("seed=1")).rollout(BATCH).codes
    assert not torch.equal(codes, other_seed)


def test_teacher_logits_are_guided_logits_of_two_passes(tiny_config: Config) -> None:
    for negative in ("Bad audio quality.", None):
        config = tiny_config("guidance.scale=3.0", f"guidance.negative_prompt={negative or 'null'}")
        module = build(config)
        rollout = module.rollout(BATCH)
        rows = len(rollout.codes)
        music = module.music
        other = music.condition([negative] * rows) if negative else music.null_condition(rows)
        with torch.no_grad():
            conditional = music.lm.logits(rollout.delayed, rollout.condition)
            expected = 3 * conditional - 2 * music.lm.logits(rollout.delayed, other)
        torch.testing.assert_close(module.teacher.heads(module.teacher_states(rollout)), expected, atol=1e-4, rtol=1e-4)


def test_without_guidance_the_student_starts_at_its_teacher(tiny_config: Config) -> None:
    module = build(tiny_config("guidance.scale=1.0", "beta=0"))
    module.training_step(BATCH, 0)
    assert module.latest.kl.abs().max() < 1e-4


def slow_loss(module: DiversityDistillation, beta: float, estimator: str) -> Tensor:
    """KL − β·J of BATCH, token by token and pair by pair, with the mean reward of the other prompts as baseline."""
    rollout, lm, n, temperature = module.rollout(BATCH), module.music.lm, 4, 0.99
    vectors = module.embed(module.decode(rollout)).double().view(4, n, -1)
    student = lm.logits(rollout.delayed, rollout.condition)
    teacher = module.teacher.heads(module.teacher_states(rollout))
    distances = [[[1 - torch.cosine_similarity(a, b, dim=0) for b in group] for a in group] for group in vectors]
    rewards = torch.zeros(4, n, dtype=torch.float64)
    for i, group in enumerate(distances):
        per_sample = [sum(group[j][k] for k in range(n) if k != j) / (n - 1) for j in range(n)]
        for j in range(n):
            rewards[i, j] = sum(per_sample) / n if estimator == "shared" else per_sample[j]
    loss = torch.zeros((), dtype=torch.float64)
    for row in range(4 * n):
        i, j = divmod(row, n)
        baseline = rewards[[p for p in range(4) if p != i]].mean()
        kl = log_p = torch.zeros((), dtype=torch.float64)
        tokens = 0
        for q in range(lm.codebooks):
            for frame in range(rollout.codes.shape[2]):
                step = frame + q
                p = torch.softmax(student[row, q, step].double() / temperature, dim=0)
                guided = torch.softmax(teacher[row, q, step].double() / temperature, dim=0)
                kl = kl + (p * (p / guided).log()).sum()
                log_p = log_p + p[rollout.codes[row, q, frame]].log()
                tokens += 1
        loss = loss + (kl - beta * (rewards[i, j] - baseline) * log_p) / tokens / (4 * n)
    return loss


@pytest.mark.parametrize("estimator", ["shared", "pairs"])
def test_loss_and_gradient_equal_a_slow_reference(tiny_config: Config, estimator: str) -> None:
    config = tiny_config("beta=200", "objective.baseline=other_prompts", f"objective.estimator={estimator}")
    module = build(config)
    loss = module.training_step(BATCH, 0)
    loss.backward()
    fast = gradients(module)
    module.zero_grad()
    expected = slow_loss(module, 200.0, estimator)
    expected.backward()
    # β must matter here, or the policy gradient would not be tested
    assert expected.item() != pytest.approx(slow_loss(module, 0.0, estimator).item(), rel=1e-3)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-3)
    slow = gradients(module)
    assert fast.keys() == slow.keys()
    for name, gradient in slow.items():
        torch.testing.assert_close(fast[name], gradient, atol=2e-5, rtol=2e-3)


def test_a_placebo_gives_each_prompt_anothers_advantages(tiny_config: Config) -> None:
    losses = []
    for overrides in ((), ("objective.shuffle_advantages=true",)):
        module = build(tiny_config("beta=200", "objective.baseline=none", *overrides))
        losses.append(module.training_step(BATCH, 0).item())
        rollout, rewards = module.rollout(BATCH), module.latest.rewards
        log_probs = (rollout.log_probs * rollout.mask).sum(dim=(1, 2)).view(4, 4)
        moved = rewards[[3, 0, 1, 2]] if overrides else rewards
        expected = (module.latest.kl.mean() - 200 * (moved * log_probs).mean()) / rollout.tokens
        assert losses[-1] == pytest.approx(expected.item(), rel=1e-3)
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)


def test_beta_zero_measures_the_reward_but_has_no_policy_gradient(tiny_config: Config) -> None:
    module = build(tiny_config("beta=0"))
    loss = module.training_step(BATCH, 0)
    kl = module.latest.kl.mean() / module.rollout(BATCH).tokens
    assert loss.item() == pytest.approx(kl.item(), rel=1e-5)
    assert (module.latest.rewards > 0).all()


def test_micro_batches_accumulate_to_the_whole_batch(tiny_config: Config) -> None:
    """Two micro-batches of one prompt each, or both prompts at once: the same step of plain gradient descent."""
    weights = {}
    for micro in (4, 8):
        config = tiny_config("beta=50", "data.batch_size=8", f"data.micro_batch_size={micro}")
        module = build(config)
        module.configure_optimizers = lambda module=module: torch.optim.SGD(module.music.lm.parameters(), lr=1.0)
        fit(module, config, steps=3)
        weights[micro] = module.state_dict()
    start = build(config).state_dict()
    moved = max((weights[8][name] - start[name]).abs().max() for name in start)
    assert moved > 1e-2
    for name in start:
        torch.testing.assert_close(weights[4][name], weights[8][name], atol=1e-4, rtol=1e-3)


def test_two_optimiser_steps_change_the_language_model_alone(tiny_config: Config) -> None:
    config = tiny_config("data.batch_size=8", "data.micro_batch_size=8")
    module = build(config)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    fit(module, config, steps=2)
    changed = {name for name, p in module.named_parameters() if not torch.equal(p, before[name])}
    trained = {f"music.lm.{name}" for name, _ in module.music.lm.named_parameters()}
    assert changed == trained
    assert any("projection" in name for name in changed)


@pytest.mark.parametrize("channels", [1, 2])
def test_a_checkpoint_of_the_library_takes_two_steps_and_is_saved_as_one(
    tiny_config: Config, tmp_path: Path, channels: int
) -> None:
    """EnCodec at another sample rate than the embedder's, in several shards; mono and stereo."""
    library = runpy.run_path(str(Path(__file__).parents[1] / "models" / "conftest.py"))
    library["build_library_model"](channels).save_pretrained(tmp_path / "model", max_shard_size="40KB")
    library["build_tokenizer"]().save_pretrained(tmp_path / "model")
    config = tiny_config(f"model.name={tmp_path / 'model'}", "rollout.seconds=0.02", "optimizer.learning_rate=1e-2")
    module = build(config)
    fit(module, config, steps=2)
    module.music.save(tmp_path / "step-000002")
    saved, start = MusicGen.load(tmp_path / "step-000002"), MusicGen.load(tmp_path / "model")
    for name, weight in start.lm.named_parameters():
        assert not torch.equal(weight, saved.lm.get_parameter(name))
        assert torch.equal(module.music.lm.get_parameter(name), saved.lm.get_parameter(name))
    for part in ("text_encoder", "codec"):
        for name, weight in getattr(start, part).named_parameters():
            assert torch.equal(weight, getattr(saved, part).get_parameter(name))


def test_saved_keys_are_the_trained_keys(tiny_config: Config) -> None:
    for baseline, extra in (("other_prompts", set()), ("value_head", {"baseline.head.weight", "baseline.head.bias"})):
        module = build(tiny_config(f"objective.baseline={baseline}"))
        optimizer = module.configure_optimizers()["optimizer"]
        trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
        names = {name for name, p in module.named_parameters() if id(p) in trained}
        saved = set(module.state_dict())
        buffers = {f"music.lm.{name}" for name, _ in module.music.lm.named_buffers()}
        assert extra <= names
        assert names <= saved <= names | buffers


def test_loading_restores_the_trained_part_and_refuses_other_keys(tiny_config: Config) -> None:
    module, other = build(tiny_config()), build(tiny_config())
    with torch.no_grad():
        for p in module.music.lm.parameters():
            p.add_(0.1)
    state = module.state_dict()
    other.load_state_dict(state)
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in state.items())
    assert not torch.equal(other.teacher.decoder.lm_heads[0].weight, other.music.lm.decoder.lm_heads[0].weight)
    name = next(iter(state))
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict({k: v for k, v in state.items() if k != name})
    with pytest.raises(RuntimeError, match="Unexpected key"):
        other.load_state_dict({**state, "music.lm.typo": state[name]})


def test_the_kl_falls_at_beta_zero(tiny_config: Config) -> None:
    config = tiny_config("beta=0", "optimizer.learning_rate=2e-3")
    module = build(config)
    curve: list[float] = []

    class Recorder(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *args) -> None:
            curve.append(pl_module.metrics["kl_per_token"])

    fit(module, config, Recorder(), steps=30)
    assert sum(curve[-5:]) < 0.6 * sum(curve[:5])


def test_each_step_has_its_numbers(tiny_config: Config) -> None:
    config = tiny_config("beta=15", "objective.beta_ramp_steps=2", "data.batch_size=16", "data.micro_batch_size=8")
    module = build(config)
    stages: dict[int, set[str]] = {}

    class Recorder(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, *args) -> None:
            named = (name for name in pl_module.metrics if name.startswith("seconds_"))
            stages[trainer.global_step] = {name.removeprefix("seconds_") for name in named}

    fit(module, config, BetaSchedule(15.0, 2), Recorder(), steps=2)
    metrics = module.metrics
    tokens = 4 * 8
    assert metrics["kl_per_token"] == pytest.approx(metrics["kl"] / tokens)
    assert metrics["beta"] == pytest.approx(7.5)
    assert 0 < metrics["entropy"] < torch.tensor(16.0).log()
    assert metrics["grad_norm"] > 0
    always = {"rollout", "student", "teacher", "decode", "embed", "backward"}
    assert stages == {0: set(), 1: always | {"diagnostics"}, 2: always}


def test_warm_up_raises_the_learning_rate_linearly(tiny_config: Config) -> None:
    config = tiny_config("optimizer.warmup_steps=4", "optimizer.learning_rate=1e-3")
    configured = build(config).configure_optimizers()
    schedule = configured["lr_scheduler"]["scheduler"]
    rates = []
    for _ in range(6):
        rates.append(schedule.get_last_lr()[0])
        configured["optimizer"].step()
        schedule.step()
    assert rates == pytest.approx([2.5e-4, 5e-4, 7.5e-4, 1e-3, 1e-3, 1e-3])


def test_the_value_head_learns_and_the_moving_average_waits_for_the_end_of_the_step(tiny_config: Config) -> None:
    config = tiny_config("objective.baseline=value_head", "data.batch_size=8", "data.micro_batch_size=4")
    module = build(config)
    fit(module, config, steps=2)
    assert module.baseline.head.bias.abs() > 0
    config = replace(config, objective=replace(config.objective, baseline="moving_average"))
    module = build(config)
    fit(module, config, steps=1)
    assert module.baseline.weight == pytest.approx(0.1)  # one update for two micro-batches
    assert module.baseline.average == pytest.approx(module.metrics["reward"])


def test_a_wrong_value_head_leaves_the_policys_step_alone(tiny_config: Config) -> None:
    config = tiny_config("objective.baseline=value_head", "data.batch_size=4", "data.micro_batch_size=4")
    module = build(config)
    for parameter, size in (*((p, 1e-3) for p in module.music.lm.parameters()), (module.baseline.head.weight, 1e6)):
        parameter.grad = torch.full_like(parameter, size)
    before = [p.grad.clone() for p in module.music.lm.parameters()]
    norm = torch.cat([g.flatten() for g in before]).norm()
    module.configure_gradient_clipping(None, gradient_clip_val=norm.item() / 2)
    for parameter, gradient in zip(module.music.lm.parameters(), before, strict=True):
        torch.testing.assert_close(parameter.grad, gradient / 2, rtol=1e-4, atol=0)


def test_a_checkpoint_is_refused_beside_other_frozen_weights(tiny_config: Config) -> None:
    checkpoint: dict = {}
    build(tiny_config()).on_save_checkpoint(checkpoint)
    same, other = build(tiny_config()), build(tiny_config())
    same.on_load_checkpoint(checkpoint)
    same.on_load_checkpoint({})  # of a version that kept no fingerprints
    with torch.no_grad():
        same.music.lm.decoder.lm_heads[0].weight.add_(1)  # what is trained may differ
        for part in (other.teacher, other.embedder):
            next(part.parameters()).add_(1e-3)
    same.on_load_checkpoint(checkpoint)
    with pytest.raises(ValueError, match="with another teacher and another reward embedder than is loaded now"):
        other.on_load_checkpoint(checkpoint)


def test_the_negative_prompt_is_encoded_once(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    module, asked = build(tiny_config("guidance.negative_prompt=noise")), []
    condition = module.music.condition
    monkeypatch.setattr(module.music, "condition", lambda prompts: asked.append(prompts) or condition(prompts))
    first, again = module._negative(2), module._negative(3)
    assert asked == [["noise"]]
    torch.testing.assert_close(again.states, condition(["noise"]).states.expand(3, -1, -1))
    assert (len(first), len(again)) == (2, 3)


@pytest.mark.parametrize(("step", "timed"), [(0, True), (1, False), (9, True), (50, True), (51, False)])
def test_a_gpu_is_timed_in_the_steps_that_are_logged(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch, step: int, timed: bool
) -> None:
    module = build(tiny_config("trainer.log_every=10"))
    monkeypatch.setattr(DiversityDistillation, "global_step", step)
    module.on_train_batch_start(BATCH, 0)
    assert module.record.timing == timed
