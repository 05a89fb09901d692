from __future__ import annotations

import pytest
import torch

from qd.scorers.protocol import Quality, check_rows


class Named:
    def __init__(self, name: str, version: str) -> None:
        self.name, self.version, self.sample_rate = name, version, 16_000

    def __call__(self, audio, sample_rate, prompts):
        return audio.mean(dim=1)


def test_quality_is_omega_times_adherence_plus_preference():
    adherence, preference = torch.tensor([0.2, -0.1]), torch.tensor([-0.5, 3.0])
    scorers = Named("a", "1"), Named("p", "2")
    torch.testing.assert_close(Quality(*scorers).combine(adherence, preference), torch.tensor([0.5, 2.5]))
    torch.testing.assert_close(Quality(*scorers, 20.0).combine(adherence, preference), torch.tensor([3.5, 1.0]))


def test_the_description_changes_with_omega_names_and_versions():
    described = Quality(Named("a", "1"), Named("p", "2"), 5.0).description
    assert described == "5*a@1+p@2"
    others = [
        Quality(Named("a", "1"), Named("p", "2"), 5.5),
        Quality(Named("b", "1"), Named("p", "2")),
        Quality(Named("a", "1"), Named("p", "3")),
    ]
    assert len({described, *(other.description for other in others)}) == 4


def test_rows_and_prompts_match():
    check_rows(torch.zeros(2, 5), ["a", "b"])
    with pytest.raises(ValueError, match="3 clips but 2 prompts"):
        check_rows(torch.zeros(3, 5), ["a", "b"])
