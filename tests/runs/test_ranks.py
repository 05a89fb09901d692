"""Processes that torchrun or srun started as one command."""

from __future__ import annotations

import socket
import sys

import pytest
import torch

from qd.runs.collective import ranks
from qd.runs.ranks import process_group
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
