"""The bad inputs of the fault campaign: a few of them, and that an unhandled one is noticed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from experiments.fault_attempt import Attempt
from experiments.fault_inputs import faults

FAULTS = {f"{fault.kind}: {fault.name}": fault for fault in faults()}
FAST = (
    "bad table of ratings: an open quotation mark",
    "bad manifest: a name of 5,000 letters",
    "bad config: a pipe that nobody writes",
    "bad config: an object of Python",
    "bad setting: an interpolation of itself",
    "bad results file: a folder: pick",
    "bad recording: an empty file",
    "bad recording: a git-lfs pointer",
    "bad name or path: sample: a prompt that is not UTF-8",
    "bad variable of make: PROMPT",
    "foreign or hostile model: an absolute shard",
    "damaged config.yaml: an empty file",
)


@pytest.mark.parametrize("name", FAST)
def test_a_bad_input_gets_one_answer_with_its_facts(name: str, tmp_path: Path) -> None:
    assert FAULTS[name].check(tmp_path / "fault") is None


def test_every_kind_has_inputs_and_each_name_is_used_once() -> None:
    kinds = Counter(fault.kind for fault in faults())
    assert len(faults()) == len(FAULTS) >= 120 and len(kinds) >= 12


@pytest.mark.parametrize(
    ("attempt", "problem"),
    [
        (Attempt(("report", "--points", "gone.jsonl"), facts=("line 7",)), "no 'line 7'"),
        (Attempt(("report", "--points", "gone.jsonl"), status=0), "exit status 2; expected 0"),
        (Attempt(("executed",), program=("touch",), status=0), "code was executed"),
    ],
)
def test_a_wrong_answer_is_noticed(attempt: Attempt, problem: str, tmp_path: Path) -> None:
    assert problem in attempt.check(tmp_path / "fault")
