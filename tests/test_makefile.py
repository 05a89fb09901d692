from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TARGETS = (
    "setup", "train-embedder", "embedder-report", "train", "train-preference", "scorer-ranges", "tensorboard", "sample",
    "merge", "fad", "evaluate", "sweep", "report", "pick", "ship", "base", "reproduce", "reproduce-quick",
    "bench", "profile", "test", "test-slow", "lint", "help",
)  # fmt: skip
AWKWARD = """it's "50 $HOME" $(shell echo x) `id` \\ * ;# ü"""

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.fixture
def make(tmp_path):
    """Runs make in a folder where everything is installed, and ``qd`` only tells its arguments."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "qd").write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    (programs / "qd").chmod(0o755)
    (tmp_path / ".venv" / "installed").touch()

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
        # Not the environment of the make that runs this test: it would pass its own variables on.
        clean = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **environment}
        return subprocess.run(["make", *arguments], cwd=tmp_path, env=clean, capture_output=True, text=True)

    return run


def arguments_of(result: subprocess.CompletedProcess) -> list[str]:
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def test_plain_make_lists_every_target_on_one_line(make):
    listed = [line.split()[0] for line in make().stdout.splitlines()]
    assert sorted(listed) == sorted(TARGETS)


def test_every_target_is_documented_and_phony():
    text = (ROOT / "Makefile").read_text().replace("\\\n", "")
    targets = re.findall(r"^([a-z][a-z-]*):(?!=)", text, flags=re.MULTILINE)
    assert sorted(targets) == sorted(TARGETS)
    assert sorted(re.search(r"^\.PHONY: (.*)$", text, flags=re.MULTILINE)[1].split()) == sorted(TARGETS)


def test_every_target_takes_the_variables_that_its_recipe_uses():
    text = (ROOT / "Makefile").read_text().replace("\\\n", "")
    definitions = dict(re.findall(r"^([A-Z]+_OPTIONS) = (.*)$", text, flags=re.MULTILINE))
    lists = dict(re.findall(r"^([A-Z]+|TAKES_[a-z-]+) := (.*)$", text, flags=re.MULTILINE))
    recipes = re.findall(r"^([a-z-]+): \$\(STAMP\).*\n((?:\t.*\n?)+)", text, flags=re.MULTILINE)
    assert len(recipes) == len(TARGETS) - 2  # all but help and setup
    for target, recipe in recipes:
        recipe = re.sub(r"\$\(([A-Z]+_OPTIONS)\)", lambda found: definitions[found[1]], recipe)
        used = set(re.findall(r"call option,([A-Z]+)|\$\$QD_([A-Z]+)|\$\((ARGS)\)|filter-out 0,\$\(([A-Z]+)\)", recipe))
        taken = re.sub(r"\$\(([A-Z]+)\)", lambda found: lists[found[1]], lists.get(f"TAKES_{target}", "")).split()
        assert sorted(taken) == sorted("".join(names) for names in used), target


def test_a_variable_that_a_target_does_not_take_is_an_error(make):
    for arguments, told in (
        (["sweep", "SEED=1", "N=2"], r"make sweep does not know .*; it takes CONFIG SEEDS PROTOCOL"),
        (["report", "PROTOCL=full"], r"make report does not know PROTOCL; it takes POINTS"),
        (["lint", "ARGS=x"], "make lint does not know ARGS; it takes no variable"),
        (["BETA=15"], "make help does not know BETA"),
    ):
        result = make(*arguments)
        assert result.returncode == 2 and re.search(told, result.stderr), result.stderr
    given = make("train", "BETA=1", "OMP_NUM_THREADS=1", SEED="3", N="4")  # for the programs, and of the environment
    assert arguments_of(given) == ["train", "--beta=1", "--seed=3"]


def test_measuring_and_reading_pass_the_variables_that_are_set(make):
    given = make("sweep", "CONFIG=quick", "SEEDS=0 1", "PROTOCOL=paper", "REFERENCE=a b")
    measured = ["--seeds", "0", "1", "--protocol=paper", "--reference=a b"]
    assert arguments_of(given) == ["sweep", *measured, "--config=quick"]
    given = make("evaluate", "MODEL=a:0.5 b:0.5", "SEEDS=0 1", "PROTOCOL=paper", "REFERENCE=a b", "GUIDANCE=3")
    assert arguments_of(given) == ["evaluate", *measured, "--model=a:0.5 b:0.5", "--guidance=3"]
    assert arguments_of(make("report", "PROTOCOL=full", "RUNS=a b")) == [
        "report",
        "--runs",
        "a",
        "b",
        "--protocol=full",
    ]
    assert arguments_of(make("pick", "QUALITY=1", "PROTOCOL=full")) == ["pick", "--quality=1", "--protocol=full"]
    assert arguments_of(make("ship", "MODEL=a", "NAME=b", "POINTS=c")) == [
        "ship",
        "--model=a",
        "--name=b",
        "--points=c",
    ]
    assert arguments_of(make("fad", "MODEL=a", "PROTOCOL=paper")) == ["fad", "--model=a", "--protocol=paper"]


def test_train_passes_the_variables_that_are_set(make):
    assert arguments_of(make("train")) == ["train"]
    given = make("train", "BETA=0", "SEED=0", "CONFIG=quick", "RESUME=runs/x", "DEVICE=cpu", "EMBEDDER=e", "PROMPTS=p")
    assert arguments_of(given) == [
        "train", "--beta=0", "--embedder=e", "--prompts=p", "--config=quick", "--resume=runs/x", "--seed=0",
        "--device=cpu",
    ]  # fmt: skip


def test_overrides_are_split_as_the_shell_does(make):
    given = make("train", "ARGS=trainer.max_steps=2 'guidance.negative_prompt=Low quality.' --dry-run")
    assert arguments_of(given) == ["train", "trainer.max_steps=2", "guidance.negative_prompt=Low quality.", "--dry-run"]


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_values_arrive_as_they_were_written(make, shell):
    if not Path(shell).exists():
        pytest.skip(f"no {shell}")
    given = make(
        "sample", f"SHELL={shell}", f"PROMPT={AWKWARD}", "MODEL=my runs/x", "N=2", "GUIDANCE=3", "SECONDS=8",
        "TOPK=250", "TOPP=0.9", "OUT=a b",
    )  # fmt: skip
    expected = ["--model=my runs/x", f"--prompt={AWKWARD}", "--n=2", "--guidance=3", "--seconds=8"]
    expected += ["--top-k=250", "--top-p=0.9", "--out=a b"]
    assert arguments_of(given) == ["sample", *expected]
    assert arguments_of(make("sample", f"SHELL={shell}", "PROMPT=x")) == ["sample", "--prompt=x"]


def test_train_embedder_passes_the_recordings(make):
    given = make("train-embedder", "CONFIG=paper", "DATA=my music", "ARGS=trainer.max_steps=2")
    assert arguments_of(given) == ["train-embedder", "--data=my music", "--config=paper", "trainer.max_steps=2"]


def test_embedder_report_passes_the_variables_that_are_set(make):
    given = make("embedder-report", "EMBEDDER=runs/x", "DATA=my music", "N=64", "OUT=a b", "DEVICE=cpu", "CLAP=c")
    assert arguments_of(given) == [
        "embedder-report", "--embedder=runs/x", "--data=my music", "--n=64", "--out=a b", "--device=cpu", "--clap=c",
    ]  # fmt: skip


def test_merge_passes_two_models_or_several(make):
    given = make("merge", "A=my runs/a", "B=base", "LAMBDA=-0.5", "EXTRAPOLATE=1", "OUT=a b")
    assert arguments_of(given) == ["merge", "--a=my runs/a", "--b=base", "--lambda=-0.5", "--extrapolate", "--out=a b"]
    given = make("merge", "MODELS=runs/a:0.25 runs/b:0.75", "EXTRAPOLATE=0")
    assert arguments_of(given) == ["merge", "--models", "runs/a:0.25", "runs/b:0.75"]


def test_scorer_ranges_passes_the_variables_that_are_set(make):
    given = make("scorer-ranges", "MODEL=runs/x", "ADHERENCE=clap:my clap", "PREFERENCE=p", "N=8", "PROMPTS=a")
    assert arguments_of(given) == [
        "scorer-ranges", "--model=runs/x", "--adherence=clap:my clap", "--preference=p", "--prompts=a", "--n=8",
    ]  # fmt: skip


def test_train_preference_passes_the_variables_that_are_set(make):
    given = make("train-preference", "DATA=my ratings.csv", "EMBEDDER=clap:x", "OUT=a b", "SEED=1", "DEVICE=cpu")
    assert arguments_of(given) == [
        "train-preference", "--data=my ratings.csv", "--embedder=clap:x", "--out=a b", "--seed=1", "--device=cpu",
    ]  # fmt: skip


def test_fad_passes_the_variables_that_are_set(make):
    given = make("fad", "AUDIO=a b", "REFERENCE=c", "EMBEDDER=vggish:w.pth", "OUT=x.json", "SEED=1", "DEVICE=cpu")
    assert arguments_of(given) == [
        "fad", "--audio=a b", "--reference=c", "--embedder=vggish:w.pth", "--out=x.json", "--seed=1", "--device=cpu",
    ]  # fmt: skip
    assert arguments_of(make("fad", "MODEL=base", "GUIDANCE=3", "PROMPTS=my p.txt", "SECONDS=10")) == [
        "fad", "--model=base", "--guidance=3", "--prompts=my p.txt", "--seconds=10",
    ]  # fmt: skip


def test_variables_may_come_from_the_environment_but_not_the_name_of_the_machine(make):
    assert arguments_of(make("train-embedder", SEED="3", NAME="my-laptop")) == ["train-embedder", "--seed=3"]
    assert arguments_of(make("train-embedder", "NAME=x", NAME="my-laptop")) == ["train-embedder", "--name=x"]


def test_base_takes_several_stages(make):
    assert arguments_of(make("base", "STAGE=codec tokens", "ARGS=--install")) == [
        "base",
        "--stage",
        "codec",
        "tokens",
        "--install",
    ]


def test_without_a_python_that_is_new_enough_setup_says_so(make, tmp_path):
    os.utime(tmp_path / ".venv" / "installed", (0, 0))
    old = tmp_path / "python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    for python in (str(old), ""):
        result = make("setup", f"PYTHON={python}")
        assert result.returncode != 0
        assert "Python 3.10 or newer is needed" in result.stderr
