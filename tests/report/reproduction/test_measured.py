"""Measured points by role, and refused results files."""

from __future__ import annotations

import pytest

from qd.evaluation.points import PointsFile
from qd.evaluation.results import NotMeasuredError
from qd.report.reproduction.document import models_table
from qd.report.reproduction.measured import Measured, role_of, roles
from tests.report.reproduction.conftest import PAPER


def test_shipped_and_retrained_models_have_the_same_roles():
    assert roles("beta15") == roles("runs/a/beta15") == roles("runs/a/beta15/step-002000") == {"beta15": 1.0}
    assert roles("runs/a/beta0:1.0 base:0.0") == {"beta0": 1.0}
    assert role_of("base") == "base"


def test_the_sweeps_are_found(world):
    world.fill(PAPER)
    measured = Measured(world.file, world.runs)
    assert [p.guidance_scale for p in measured.scales("base")] == [1, 2, 3, 5, 7]
    assert [p.guidance_scale for p in measured.scales("base", unconditional=True)] == [1, 3, 7]
    assert [p.temperature for p in measured.temperatures("beta0")] == [0.8, 0.99, 1.1]
    assert [lam for lam, _ in measured.line("beta0", "beta15")] == [0, 0.25, 0.5, 0.75, 1]
    assert measured.model("beta0", seed=1).seed == 1
    with pytest.raises(NotMeasuredError, match="LERP"):
        measured.line("beta5", "beta15")


def test_two_models_of_one_role_are_refused(world):
    for model in ("runs/x/beta15/step-002000", "beta15", "runs/x/beta15/step-002000:0.5 base:0.5"):
        world.add(model, PAPER["beta15"])
    with pytest.raises(ValueError, match=r"role beta15 \(beta15, runs/x/beta15/step-002000\)"):
        Measured(world.file, world.runs)


@pytest.mark.parametrize(
    "later", ["runs/x/beta15/step-004000", "runs/x/beta0/step-002000:0.5 runs/x/beta15/step-004000:0.5"]
)
def test_two_steps_of_one_role_are_refused(world, later):
    world.add("runs/x/beta15/step-002000", PAPER["beta15"], step=2000)
    world.add(later, PAPER["beta15"], step=0 if ":" in later else 4000)
    with pytest.raises(ValueError, match=r"beta15 \(runs/x/beta15/step-002000, runs/x/beta15/step-004000\)"):
        Measured(world.file, world.runs)


def test_a_run_named_without_its_step_is_the_same_role(world):
    """Earlier versions wrote such points; for a single model the step is a field of the point."""
    world.add("runs/x/beta15", PAPER["beta15"], step=2000, seed=0)
    world.add("runs/x/beta15/step-002000", PAPER["beta15"], step=2000, seed=1)
    world.add("runs/x/beta0:0.5 runs/x/beta15:0.5", PAPER["beta15"], lam=0.5)
    assert len(Measured(world.file, world.runs).points) == 3
    world.add("runs/x/beta15", PAPER["beta15"], step=4000, seed=2)
    with pytest.raises(ValueError, match="step-002000, runs/x/beta15/step-004000"):
        Measured(world.file, world.runs)


def test_a_model_retrained_under_its_old_name_is_refused(world):
    """Also if only an interpolation was measured again, and the model is one of its ends."""
    world.add("runs/x/beta15", PAPER["beta15"])
    world.add("runs/x/beta15", PAPER["beta15"], guidance_scale=3.0, negative="Bad.")
    world.add("runs/x/beta0:0.0 runs/x/beta15:1.0", PAPER["beta15"], lam=1.0, key=f"{0:016x}", series="slider")
    assert len(Measured(world.file, world.runs).points) == 3
    world.add("runs/x/beta0:0.0 runs/x/beta15:1.0", PAPER["beta10"], lam=1.0, key="f" * 16, series="lerp")
    with pytest.raises(ValueError, match=r"2 measurements.*0000 .*'runs/x/beta15', f+ "):
        Measured(world.file, world.runs)


def test_incomparable_results_are_refused(world):
    world.add("base", PAPER["base"])
    world.add("base", PAPER["base"], protocol="quick")
    with pytest.raises(ValueError, match="not comparable"):
        Measured(world.file, world.runs)
    with pytest.raises(ValueError, match="has no points"):
        Measured(world.file.with_name("none.jsonl"), world.runs)


def test_distances_to_two_references_are_refused(world):
    world.add("base", PAPER["base"])
    world.add("beta0", PAPER["beta0"], fad=None, fad_infinite=None, fad_reference="")
    assert len(Measured(world.file, world.runs).points) == 2
    world.add("beta15", PAPER["beta15"], fad_reference="mine")
    with pytest.raises(ValueError, match="references.*mine, r.*one reference"):
        Measured(world.file, world.runs)


def test_a_duplicate_point_with_a_distance_counts_first(world):
    without_fad = {"fad": None, "fad_infinite": None, "fad_reference": ""}
    for seed in (0, 1):
        for model, guidance in (("base", {"guidance_scale": 3.0, "negative": "Bad."}), ("beta15", {})):
            key = f"{len(PointsFile(world.file).read()):016x}"
            world.add(model, PAPER[model], seed=seed, series="slider", **guidance, **without_fad)
            world.add(model, PAPER[model], seed=seed, series="betas", key=key, **guidance)
    measured = Measured(world.file, world.runs)
    assert measured.model("beta15", seed=1).fad == PAPER["beta15"]["fad"]
    assert measured.guided("base").fad == PAPER["base"]["fad"]
    assert models_table("mine", measured).count("| 6.400 |") == 2  # one row for each seed
