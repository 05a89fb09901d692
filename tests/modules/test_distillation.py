"""The parts of a training step, and its loss and gradients against a slow reference."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from qd.config.train import TrainConfig
from qd.data.prompts import PromptBatch
from qd.modules.distillation import DiversityDistillation
from qd.objectives.distillation import token_log_probs
from tests.modules.tiny_runs import build

PROMPTS = ["a calm piano piece", "fast drums", "strings, slow and sad", "an 8-bit melody"]
BATCH = PromptBatch(PROMPTS, [4, 5, 6, 7])

Config = Callable[..., TrainConfig]


def gradients(module: DiversityDistillation) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in module.music.lm.named_parameters() if p.grad is not None}


def test_sampled_log_probs_equal_rescored_ones(tiny_config: Config) -> None:
    module = build(tiny_config())
    rollout = module.rollout(BATCH)
    logits = module.music.lm.heads(module.student_states(rollout))
    rescored = token_log_probs(logits, rollout.delayed, rollout.mask, 0.99)
    torch.testing.assert_close(rescored, rollout.log_probs, atol=1e-4, rtol=1e-4)
    assert rescored[:, rollout.mask].abs().min() > 0  # every token has a score


def test_rollout_is_a_function_of_seed_step_and_global_row(tiny_config: Config) -> None:
    module = build(tiny_config())
    codes = module.rollout(BATCH).codes
    assert torch.equal(codes, module.rollout(BATCH).codes)
    last_prompt = module.rollout(PromptBatch(PROMPTS[3:], [7])).codes
    assert torch.equal(codes[-4:], last_prompt)
    assert not torch.equal(codes[:4], codes[4:8])
    other_seed = build(tiny_config("seed=1")).rollout(BATCH).codes
    assert not torch.equal(codes, other_seed)


def test_teacher_logits_equal_guided_logits_of_two_passes(tiny_config: Config) -> None:
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


def test_without_guidance_the_student_starts_equal_to_its_teacher(tiny_config: Config) -> None:
    module = build(tiny_config("guidance.scale=1.0", "beta=0"))
    module.training_step(BATCH, 0)
    assert module.latest.kl.abs().max() < 1e-4


def slow_loss(module: DiversityDistillation, beta: float, estimator: str) -> Tensor:
    """Returns KL − β·J of BATCH, token by token and pair by pair, with the mean reward of other prompts as baseline."""
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
    # β must change the loss here, or the policy gradient would not be tested.
    assert expected.item() != pytest.approx(slow_loss(module, 0.0, estimator).item(), rel=1e-3)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-3)
    slow = gradients(module)
    assert fast.keys() == slow.keys()
    for name, gradient in slow.items():
        torch.testing.assert_close(fast[name], gradient, atol=2e-5, rtol=2e-3)


def test_shuffled_advantages_give_each_prompt_those_of_another(tiny_config: Config) -> None:
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


def test_a_checkpoint_with_other_frozen_weights_is_refused(tiny_config: Config) -> None:
    checkpoint: dict = {}
    build(tiny_config()).on_save_checkpoint(checkpoint)
    same, other = build(tiny_config()), build(tiny_config())
    same.on_load_checkpoint(checkpoint)
    same.on_load_checkpoint({})  # from a version that saved no fingerprints
    with torch.no_grad():
        same.music.lm.decoder.lm_heads[0].weight.add_(1)  # trained weights may differ
        for part in (other.teacher, other.embedder):
            next(part.parameters()).add_(1e-3)
    same.on_load_checkpoint(checkpoint)
    with pytest.raises(ValueError, match="teacher and .*reward embedder"):
        other.on_load_checkpoint(checkpoint)


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


def test_clipping_ignores_the_gradient_of_the_value_head(tiny_config: Config) -> None:
    config = tiny_config("objective.baseline=value_head", "data.batch_size=4", "data.micro_batch_size=4")
    module = build(config)
    for parameter, size in (*((p, 1e-3) for p in module.music.lm.parameters()), (module.baseline.head.weight, 1e6)):
        parameter.grad = torch.full_like(parameter, size)
    before = [p.grad.clone() for p in module.music.lm.parameters()]
    norm = torch.cat([g.flatten() for g in before]).norm()
    module.configure_gradient_clipping(None, gradient_clip_val=norm.item() / 2)
    for parameter, gradient in zip(module.music.lm.parameters(), before, strict=True):
        torch.testing.assert_close(parameter.grad, gradient / 2, rtol=1e-4, atol=0)


def test_the_negative_prompt_is_encoded_once(tiny_config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    module, encoded = build(tiny_config("guidance.negative_prompt=noise")), []
    condition = module.music.condition
    monkeypatch.setattr(module.music, "condition", lambda prompts: encoded.append(prompts) or condition(prompts))
    first, again = module._negative(2), module._negative(3)
    assert encoded == [["noise"]]
    torch.testing.assert_close(again.states, condition(["noise"]).states.expand(3, -1, -1))
    assert (len(first), len(again)) == (2, 3)


@pytest.mark.parametrize(("step", "timed"), [(0, True), (1, False), (9, True), (50, True), (51, False)])
def test_stages_on_a_gpu_are_timed_only_in_logged_steps(
    tiny_config: Config, monkeypatch: pytest.MonkeyPatch, step: int, timed: bool
) -> None:
    module = build(tiny_config("trainer.log_every=10"))
    monkeypatch.setattr(DiversityDistillation, "global_step", step)
    module.on_train_batch_start(BATCH, 0)
    assert module.record.timing == timed
