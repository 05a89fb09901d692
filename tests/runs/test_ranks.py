"""Processes that torchrun or srun started as one command."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Timer

import pytest
import torch
from lightning.pytorch.plugins.environments import LightningEnvironment, SLURMEnvironment

from qd.runs import meeting
from qd.runs.collective import ranks
from qd.runs.meeting import SIZES
from qd.runs.process_rank import RANKS
from qd.runs.ranks import process_group, trainer_places, training_group
from qd.runs.signals import stop_signals
from tests.processes import ended, launch

REPORT = """
import torch
from qd.runs.collective import gather_objects, rank
from qd.runs.ranks import process_group
with process_group(torch.device("cpu")) as device:
    print(device, gather_objects(rank()))
"""


@pytest.fixture
def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("localhost", 0))
        return bound.getsockname()[1]


def test_the_tasks_of_srun_are_the_ranks_of_one_command(free_port):
    """With the variables of srun: two tasks of a job with four."""
    job = {"SLURM_JOB_ID": str(free_port), "SLURM_STEP_ID": "0", "SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "2"}
    job |= {"SLURM_STEP_NODELIST": "localhost", "MASTER_PORT": str(free_port)}
    tasks = [launch([sys.executable, "-c", REPORT], SLURM_PROCID=str(i), SLURM_LOCALID=str(i), **job) for i in (0, 1)]
    outputs = [ended(task) for task in tasks]
    assert [text for text, _ in outputs] == ["cpu [0, 1]\n"] * 2, outputs


def test_a_batch_script_without_srun_is_one_process(monkeypatch):
    monkeypatch.setenv("SLURM_NTASKS", "4")
    monkeypatch.setenv("SLURM_PROCID", "0")
    with process_group(torch.device("cpu")) as device:
        assert device.type == "cpu" and ranks() == 1


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets these variables of torchrun and srun, and removes all others."""

    def replace(**values: str) -> None:
        for name in (*RANKS, *SIZES, "QD_RUN_FOLDER", "MASTER_ADDR", "MASTER_PORT"):
            monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return replace


@pytest.mark.parametrize(
    ("values", "facts"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2.*no variable gives the rank.*unset WORLD_SIZE"),
        ({"RANK": "1"}, "RANK=1.*0 to 0.*unset RANK"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2, WORLD_SIZE=2.*0 to 1.*unset RANK WORLD_SIZE"),
        ({"RANK": "0", "WORLD_SIZE": "two"}, "WORLD_SIZE in the environment is 'two'"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, "WORLD_SIZE=2.*MASTER_ADDR and MASTER_PORT is not set.*torchrun"),
    ],
)
def test_left_over_variables_are_named_at_once(variables: Callable[..., None], values: dict, facts: str) -> None:
    variables(**values)
    with pytest.raises(ValueError, match=facts), process_group(torch.device("cpu")):
        pass


@pytest.mark.parametrize(
    "values",
    [
        {"RANK": "0", "WORLD_SIZE": "2"},
        {"LOCAL_RANK": "0", "WORLD_SIZE": "2"},
        {"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "2"},
        {"RANK": "1"},
    ],
)
def test_a_run_of_one_process_refuses_the_variables_of_several(variables: Callable[..., None], values: dict) -> None:
    variables(**values)
    name, value = list(values.items())[-1]
    with pytest.raises(ValueError, match=f"{name}={value}.*unset.*{name}"), training_group("cpu", 1):
        pass


@pytest.mark.parametrize("values", [{}, {"RANK": "0"}, {"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}])
def test_a_run_of_one_process_starts_alone(variables: Callable[..., None], values: dict) -> None:
    variables(**values)
    with training_group("cpu", 1):
        assert ranks() == 1


def test_processes_that_lightning_starts_are_left_to_it(variables: Callable[..., None]) -> None:
    variables(LOCAL_RANK="1", WORLD_SIZE="2", QD_RUN_FOLDER="runs/x")
    with training_group("cpu", 2):
        assert ranks() == 1


@pytest.mark.parametrize("rank", ["0", "1"])
def test_processes_that_do_not_come_are_named_and_not_waited_for(
    variables: Callable[..., None], monkeypatch: pytest.MonkeyPatch, free_port: int, capsys, rank: str
) -> None:
    monkeypatch.setattr(meeting, "WAIT", 0.5)
    monkeypatch.setattr(meeting, "ANNOUNCE", 0.1)
    variables(RANK=rank, WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port))
    facts = "WORLD_SIZE=2.*1 came within.*unset RANK WORLD_SIZE"
    with pytest.raises(ValueError, match=facts), process_group(torch.device("cpu")):
        pass
    waiting = capsys.readouterr().err
    assert "waiting for 1 of 2 processes" in waiting and f"127.0.0.1:{free_port}" in waiting


def test_a_signal_ends_the_wait(variables: Callable[..., None], free_port: int) -> None:
    variables(RANK="0", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port))
    Timer(1.0, os.kill, (os.getpid(), signal.SIGTERM)).start()
    with stop_signals(), pytest.raises(KeyboardInterrupt), process_group(torch.device("cpu")):
        pass


def test_slurm_neither_requeues_nor_waits_for_the_other_tasks_of_a_job(
    variables: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SLURM_NTASKS", "4")
    variables(SLURM_PROCID="0")
    assert isinstance(trainer_places(tmp_path)["plugins"][-1], LightningEnvironment)
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "4")
    variables(SLURM_PROCID="0", SLURM_STEP_NUM_TASKS="4")
    environment = trainer_places(tmp_path)["plugins"][-1]
    assert isinstance(environment, SLURMEnvironment) and not environment.auto_requeue
