from __future__ import annotations

import math

import pytest
import torch

from qd.metrics.entropy import Entropy, entropy_per_token

MASK = torch.tensor([[True, True, False], [False, True, True]])


def test_equals_a_loop_over_real_tokens():
    logits = torch.randn(3, 2, 3, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ours = entropy_per_token(logits, MASK, 0.7)
    for row in range(3):
        values = []
        for q, s in MASK.nonzero().tolist():
            values.append(torch.distributions.Categorical(logits=logits[row, q, s] / 0.7).entropy().item())
        assert ours[row].item() == pytest.approx(sum(values) / 4)


def test_padding_does_not_count():
    logits = torch.zeros(1, 2, 3, 5)
    logits[:, ~MASK] = 100.0 * torch.arange(5)
    assert entropy_per_token(logits, MASK, 0.99).item() == pytest.approx(math.log(5))


def test_metric_averages_samples_then_prompts():
    metric = Entropy()
    metric.update(torch.tensor([[1.0, 3.0]]))
    metric.update(torch.tensor([[4.0, 4.0], [6.0, 8.0]]))
    assert metric.per_prompt().tolist() == [2.0, 4.0, 7.0]
    assert metric.compute().item() == pytest.approx(13 / 3)


def test_refuses_a_flat_batch():
    with pytest.raises(ValueError, match="view"):
        Entropy().update(torch.zeros(4))
