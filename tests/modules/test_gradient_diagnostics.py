"""Signal and noise of mean gradients against simulation, and gradients on the heads against autograd."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from qd.data.prompts import PromptBatch
from qd.models.embedders.loading import load_embedder
from qd.models.musicgen import MusicGen
from qd.modules.distillation import DiversityDistillation
from qd.modules.gradient_diagnostics import compare_gradients, head_gradients, signal_and_noise
from qd.objectives.baselines import Baseline
from qd.objectives.distillation import LOGITS_AT_ONCE


def test_signal_and_noise_are_unbiased() -> None:
    """Over many measurements of 4 terms, the means are |μ|² and the variance of the mean, Σσ²/4."""
    generator = torch.Generator().manual_seed(0)
    mean = torch.tensor([0.3, -0.2, 0.1])
    spread = torch.tensor([1.0, 0.5, 2.0])
    terms = mean + spread * torch.randn(20_000, 4, 3, generator=generator)
    measured = torch.tensor([signal_and_noise(group) for group in terms])
    error = measured.std(dim=0) / len(measured) ** 0.5
    expected = torch.tensor([mean.square().sum(), spread.square().sum() / 4])
    assert ((measured.mean(dim=0) - expected).abs() < 4 * error).all()
    assert (4 * error < 0.2 * expected.max()).all()  # the test is sensitive enough


def test_equal_terms_have_signal_and_no_noise() -> None:
    signal, noise = signal_and_noise(torch.tensor([[3.0, 4.0]] * 5))
    assert signal == pytest.approx(25) and noise == pytest.approx(0, abs=1e-5)


def test_one_prompt_is_refused() -> None:
    with pytest.raises(ValueError, match="2 prompts.*got 1"):
        signal_and_noise(torch.ones(1, 3))


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_head_gradients_equal_those_of_each_prompts_loss(tiny_model: Path, rows: int) -> None:
    """A prompt's three rows are scored at once or in chunks, which never exceed the limit."""
    lm = MusicGen.load(tiny_model).lm
    hidden = torch.randn(6, 5, 32, generator=torch.Generator().manual_seed(1), requires_grad=True)
    sizes: list[int] = []

    def loss(logits: torch.Tensor, rows: slice) -> torch.Tensor:
        sizes.append(len(logits))
        weights = torch.arange(rows.start, rows.stop)[:, None, None] + 1
        return (logits.log_softmax(-1)[..., 3] * weights).sum()

    fast = head_gradients(lm, hidden, loss, n=3, at_once=rows * 5 * 4 * 16 + 1)
    assert max(sizes) == rows and sum(sizes) == 6
    for prompt in range(2):
        chosen = slice(3 * prompt, 3 * prompt + 3)
        lm.zero_grad()
        loss(lm.heads(hidden[chosen]), chosen).backward()
        slow = torch.cat([head.weight.grad.flatten() for head in lm.decoder.lm_heads])
        torch.testing.assert_close(fast[prompt], slow)


@pytest.mark.parametrize("at_once", [LOGITS_AT_ONCE, 1])
def test_the_ratio_compares_the_gradients_of_the_whole_batch(tiny_config, at_once: int) -> None:
    """Both terms of the loss, from explicit log-softmaxes, only on the heads."""
    config, beta, temperature = tiny_config("rollout.temperature=0.9"), 15.0, 0.9
    module = DiversityDistillation(
        MusicGen.load(config.model.name), load_embedder(config.reward.embedder), Baseline(), config
    )
    rollout = module.rollout(PromptBatch(["a calm piano piece", "fast drums", "strings"], [0, 1, 2]))
    hidden, teacher = module.student_states(rollout), (module.teacher_states(rollout), module.teacher.heads)
    advantages = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    lm = module.music.lm
    compared = compare_gradients(lm, hidden, rollout, teacher, advantages, temperature, beta, at_once)

    student = (lm.heads(hidden.detach()) / temperature).log_softmax(dim=-1)  # (12, codebooks, steps, tokens)
    guided = (module.teacher.heads(teacher[0]) / temperature).log_softmax(dim=-1).detach()
    chosen = rollout.delayed.clamp(max=student.shape[-1] - 1)[..., None]  # the mask excludes the pad token
    log_p = (student.gather(-1, chosen)[..., 0] * rollout.mask).sum(dim=(1, 2))
    kl = ((student.exp() * (student - guided)).sum(dim=-1) * rollout.mask).sum()
    assert rollout.tokens == rollout.mask.sum()
    weights = list(lm.decoder.lm_heads.parameters())
    lengths = []
    for term in ((log_p * advantages.flatten()).mean() / rollout.tokens, kl / (12 * rollout.tokens)):
        gradients = torch.autograd.grad(term, weights, retain_graph=True)
        lengths.append(torch.cat([gradient.flatten() for gradient in gradients]).norm())
    policy, distillation = lengths
    assert compared["policy_gradient_to_kl"].item() == pytest.approx((beta * policy / distillation).item(), rel=1e-3)
    # By definition, signal + noise = |ḡ|².
    both = compared["policy_gradient_signal"] + compared["policy_gradient_noise"]
    assert both.item() == pytest.approx(policy.square().item(), rel=1e-3)
    ratio = compared["policy_gradient_signal"] / compared["policy_gradient_noise"]
    assert compared["policy_gradient_snr"].item() == pytest.approx(ratio.item())
