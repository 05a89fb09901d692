"""The step that a GPU captures, run normally on a CPU, and the captured step on a GPU."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from qd.models.delay import delay_mask
from qd.models.sampling import graphed_loop
from qd.models.sampling.graphed_loop import DevicePositionLoop, draw_graphed
from qd.models.sampling.sampler import counter_uniforms
from qd.models.sampling.stepwise_loop import draw_stepwise
from qd.models.sampling.token_loop import Draw

FRAMES = 135


def draw(lm, batch, guided, **options):
    uniforms = counter_uniforms(0, 0, range(batch), lm.codebooks, FRAMES + lm.codebooks)
    settings = Draw(torch.full((1, 1, 1), 0.9), lambda step: uniforms[:, :, step], guided, 3.0, None, None, False)
    return replace(settings, **options)


@pytest.fixture
def lm(make_lm):
    return make_lm(hidden_size=32, num_attention_heads=4, num_codebooks=3)


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"top_k": 5, "top_p": 0.9}, {"greedy": True, "uniforms": None}])
@pytest.mark.parametrize("guided", [False, True])
def test_a_step_with_its_position_on_the_device_equals_the_plain_loop(lm, make_condition, guided, options):
    lm, condition, mask = lm.double(), make_condition(6, 5, 32), delay_mask(lm.codebooks, FRAMES)
    condition = replace(condition, states=condition.states.double())  # rounding must not change a token
    settings = draw(lm, 3 if guided else 6, guided, **options)
    codes, log_probs, entropy = draw_stepwise(lm, condition, mask, settings)
    loop, steps = DevicePositionLoop(lm, condition, mask, settings), mask.shape[1]
    for step in range(steps):
        if settings.uniforms:
            loop.uniforms.copy_(settings.uniforms(step))
        loop.advance()
    assert torch.equal(loop.delayed, codes)
    torch.testing.assert_close(loop.log_probs, log_probs, atol=1e-5, rtol=0)
    torch.testing.assert_close(loop.entropy.sum(dim=1), entropy, atol=1e-3, rtol=1e-5)


@torch.no_grad()
def test_the_loop_and_the_models_own_device_wait_for_each_other(lm, make_condition, monkeypatch):
    """This must hold for any device, even if another GPU is the current device."""
    condition, mask, waits = make_condition(6, 5, 32), delay_mask(lm.codebooks, FRAMES), []

    class Stream:
        def __init__(self, name):
            self.name = name

        def wait_stream(self, other):
            waits.append((self.name, other.name))

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: Stream(device))
    monkeypatch.setattr(torch.cuda, "stream", nullcontext)
    monkeypatch.setattr(graphed_loop, "_stream", lambda device: Stream("loop"))
    monkeypatch.setattr(graphed_loop, "_captured", lambda work: SimpleNamespace(replay=work))
    settings = draw(lm, 6, guided=False)
    codes, log_probs, _ = draw_graphed(lm, condition, mask, settings)
    device = condition.states.device
    assert waits == [("loop", device), (device, "loop")]
    assert codes.shape == log_probs.shape == (6, *mask.shape) and bool((codes[:, mask] < lm.pad).all())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"top_k": 5, "top_p": 0.9}, {"greedy": True, "uniforms": None}])
@pytest.mark.parametrize("guided", [False, True])
def test_replayed_graphs_draw_the_same_as_the_plain_loop(lm, make_condition, guided, options):
    condition, mask = make_condition(6, 5, 32).to("cuda"), delay_mask(lm.codebooks, FRAMES, device="cuda")
    settings = draw(lm, 3 if guided else 6, guided, **options)
    uniforms = settings.uniforms and (lambda step, drawn=settings.uniforms: drawn(step).cuda())
    settings = replace(settings, inverse_temperature=settings.inverse_temperature.cuda(), uniforms=uniforms)
    expected = draw_stepwise(lm.cuda(), condition, mask, settings)
    for _ in range(2):  # the second call must not depend on the first one
        codes, log_probs, entropy = draw_graphed(lm, condition, mask, settings)
        assert (
            codes == expected[0]
        ).float().mean() > 0.99  # a rounded sum may pass a uniform, and what follows differs
        if options.get("greedy"):
            assert torch.equal(codes, expected[0])
            torch.testing.assert_close(log_probs, expected[1], atol=1e-4, rtol=0)
            torch.testing.assert_close(entropy, expected[2], atol=1e-2, rtol=1e-5)
