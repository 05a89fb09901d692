"""Two processes compute the same as one process with both batches."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.modules import two_ranks

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(two_ranks.__file__)
RANKS = 2


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> list[dict]:
    """Results of each of the two ranks."""
    folder = tmp_path_factory.mktemp("ranks")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen([sys.executable, SCRIPT, str(rank), str(RANKS), folder], env=environment)
        for rank in range(RANKS)
    ]
    assert [rank.wait(timeout=300) for rank in ranks] == [0] * RANKS
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(RANKS)]


@pytest.mark.parametrize("name", two_ranks.CHUNKS)
def test_two_ranks_equal_one_with_twice_the_batch_in_loss_and_gradients(results, name):
    single = two_ranks.Step(chunk_clips=None)
    loss = single(*two_ranks.whole_batch())
    loss.backward()
    assert loss > 0
    for rank in results:
        torch.testing.assert_close(rank[name]["loss"], loss.detach(), rtol=1e-12, atol=0)
        for parameter, gradient in two_ranks.gradients_of(single).items():
            assert gradient.abs().sum() > 0
            torch.testing.assert_close(rank[name]["gradients"][parameter], gradient, rtol=1e-10, atol=1e-14)


def test_negatives_of_the_other_rank_matter(results):
    clips, labels = (part.chunk(RANKS)[0] for part in two_ranks.whole_batch())
    assert not torch.isclose(two_ranks.Step(None)(clips, labels).detach(), results[0]["direct"]["loss"])


@pytest.mark.parametrize("name", two_ranks.CHUNKS)
def test_each_parameter_is_synchronised_once_for_any_number_of_chunks(results, name):
    parameters = len(list(two_ranks.Embedder().parameters()))
    assert [rank[name]["synchronised"] for rank in results] == [parameters] * RANKS


def test_gradient_is_the_sum_over_different_losses(results):
    weights = torch.arange(12.0).view(4, 3)
    for rank in range(RANKS):
        torch.testing.assert_close(results[rank]["unequal"], (1 + 2) * weights[2 * rank : 2 * rank + 2])


def test_rows_come_in_the_order_of_the_ranks_on_every_rank(results):
    assert [rank["gathered"].flatten().tolist() for rank in results] == [[0, 10, 1, 11]] * RANKS
