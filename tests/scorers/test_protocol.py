from __future__ import annotations

import torch

from qd.scorers.protocol import Quality


class Constant:
    def __init__(self, name: str, value: float) -> None:
        self.name, self.version, self.value = name, "1", value

    def __call__(self, audio, sample_rate, prompts):
        return torch.full((len(audio),), self.value)


def test_quality_is_five_times_adherence_plus_preference():
    score = Quality(Constant("a", 0.2), Constant("p", -0.5))
    torch.testing.assert_close(score(torch.zeros(3, 10), 16_000, ["x"] * 3), torch.full((3,), 0.5))
    assert score.name == "5*a+p" and score.version == "1+1"
