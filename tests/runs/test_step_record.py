"""Means over micro-batches and ranks."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing

from qd.runs.collective import gather_rows
from qd.runs.step_record import StepRecord


def test_means_over_micro_batches_and_sums_of_seconds() -> None:
    record = StepRecord()
    for value in (1.0, 2.0, 6.0):
        record.add(loss=torch.tensor(value, requires_grad=True))
        with record.stage("rollout", torch.device("cpu")):
            sum(range(1000))
    record.add(beta=torch.tensor(5.0))
    summary = record.summary()
    assert summary["loss"] == 3.0 and summary["beta"] == 5.0
    assert summary["seconds_rollout"] == record.seconds["rollout"] > 0


@pytest.mark.parametrize("timing", [True, False])
def test_a_gpu_is_synchronised_only_for_timing(timing: bool, monkeypatch) -> None:
    waits, gpu = [], torch.device("cuda", 1)
    monkeypatch.setattr(torch.cuda, "synchronize", waits.append)
    record = StepRecord(timing)
    with record.stage("rollout", gpu):
        pass
    record.took("backward", record.now(gpu), gpu)
    assert waits == ([gpu] * 4 if timing else [])
    assert set(record.seconds) == ({"rollout", "backward"} if timing else set())


def _rank(rank: int, file: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    rows = gather_rows(torch.tensor([[10.0 * rank], [10.0 * rank + 1]]))
    assert rows.tolist() == [[0.0], [1.0], [10.0], [11.0]]
    record = StepRecord()
    record.add(reward=torch.tensor(float(rank)))
    assert record.summary()["reward"] == 0.5
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_gather_in_order_and_share_their_means(tmp_path) -> None:
    torch.multiprocessing.spawn(_rank, (str(tmp_path / "store"),), nprocs=2)


def test_one_process_gathers_nothing() -> None:
    rows = torch.ones(2, 3)
    assert gather_rows(rows) is rows
