from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from qd.cli.main import COMMANDS
from qd.cli.options import CommandParser

ROOT = Path(__file__).resolve().parents[1]
OTHERS = (
    "setup", "tensorboard", "reproduce", "reproduce-quick", "bench", "profile", "test", "test-slow",
    "test-faults", "lint", "help",
)  # fmt: skip
AWKWARD = """it's "50 $HOME" $(shell touch executed) `id` \\ * ;# ü"""

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


@pytest.fixture
def make(tmp_path):
    """Runs make in a folder where everything is installed, and ``qd`` prints its arguments."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "qd").write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(sys.argv[1:]))\n")
    (programs / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    for name in ("qd", "python"):
        (programs / name).chmod(0o755)
    (tmp_path / ".venv" / "installed").touch()

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
        # Not the environment of the make that runs this test: it would pass its own variables on.
        clean = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **environment}
        return subprocess.run(["make", *arguments], cwd=tmp_path, env=clean, capture_output=True, text=True)

    return run


def arguments_of(result: subprocess.CompletedProcess) -> list[str]:
    """The words that ``qd`` received: the command, the options in alphabetical order, the other words."""
    assert result.returncode == 0, result.stderr
    command, *words = json.loads(result.stdout)
    options = [word for word in words if word.startswith("--") and "=" in word]
    return [command, *sorted(options), *(word for word in words if word not in options)]


def test_help_lists_every_target_in_80_columns(make):
    lines = make().stdout.splitlines()
    listed = [line.split()[0] for line in lines if line.startswith("  ")]
    assert sorted(listed) == sorted([*OTHERS, *COMMANDS])
    assert max(map(len, lines)) <= 80


def test_every_target_is_documented_and_phony():
    text = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", "")
    targets = re.findall(r"^([a-z][a-z-]*):(?!=)", text, flags=re.MULTILINE)
    assert sorted(targets) == sorted([*OTHERS, *COMMANDS])
    assert sorted(re.search(r"^\.PHONY: (.*)$", text, flags=re.MULTILINE)[1].split()) == sorted(targets)


def test_the_variables_of_the_help_are_options(make):
    for line in make().stdout.splitlines():
        name, _, text = line.strip().partition(" ")
        if name in COMMANDS:
            parser = CommandParser(COMMANDS[name])
            COMMANDS[name].add(parser)
            for variable in re.findall(r"\b[A-Z_]+\b", text.partition(":")[2]):
                assert variable == "KIND" or f"--{variable.lower().replace('_', '-')}" in parser.format_usage()


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        (["train"], []),
        (["train", "BETA=0", "SEED=0", "RESUME=runs/x"], ["--beta=0", "--resume=runs/x", "--seed=0"]),
        (["train", "trainer.max_steps=2", "a.b=c $HOME"], ["a.b=c $HOME", "trainer.max_steps=2"]),
        (["train", "ARGS=a.b=2 'c.d=Low quality.' --dry-run"], ["a.b=2", "c.d=Low quality.", "--dry-run"]),
        (["train-embedder", "DATA=my music", "ARGS=a.b=2"], ["--data=my music", "a.b=2"]),
        (["sample", "TOPK=250", "TOP_P=0.9", "SECONDS=8"], ["--seconds=8", "--top-p=0.9", "--topk=250"]),
        (["sweep", "SEEDS=0 1", "REFERENCE=a b"], ["--reference=a b", "--seeds=0 1"]),
        (
            ["merge", "A=my runs/a", "LAMBDA=-0.5", "EXTRAPOLATE=1"],
            ["--a=my runs/a", "--extrapolate=1", "--lambda=-0.5"],
        ),
        (["base", "STAGE=codec tokens", "ARGS=--install"], ["--stage=codec tokens", "--install"]),
        (["config", "KIND=sweep", "CONFIG=quick"], ["--config=quick", "sweep"]),
        (["config"], ["train"]),
        (["train", "BETA="], []),
        (["train", "BATA=1"], ["--bata=1"]),  # qd reports it
        (["train", "BETA=1", "OMP_NUM_THREADS=1", "SHELL=/bin/sh"], ["--beta=1"]),
    ],
)
def test_variables_become_options(make, variables, expected):
    command, *words = arguments_of(make(*variables))
    assert command == variables[0] and sorted(words) == sorted(expected)


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_values_arrive_unchanged_and_are_not_executed(make, shell, tmp_path):
    if not Path(shell).exists():
        pytest.skip(f"no {shell}")
    words = arguments_of(make("sample", f"SHELL={shell}", f"PROMPT={AWKWARD}", "MODEL=my runs/x", "OUT=a b"))
    assert words == ["sample", "--model=my runs/x", "--out=a b", f"--prompt={AWKWARD}"]
    assert not (tmp_path / "executed").exists()


def test_variables_of_the_environment_are_not_options(make):
    assert arguments_of(make("train", NAME="my-laptop", SEED="3")) == ["train"]
    assert arguments_of(make("train", "NAME=x", NAME="my-laptop")) == ["train", "--name=x"]


@pytest.mark.parametrize("arguments", [["lint", "ARGS=x"], ["setup", "BETA=1"], ["BETA=15"], ["help", "a.b=1"]])
def test_a_variable_of_a_target_without_options_is_an_error(make, arguments):
    result = make(*arguments)
    assert result.returncode == 2
    assert "has no options; remove " + arguments[-1].partition("=")[0] in result.stderr


def test_setup_without_a_new_enough_python_is_an_error(make, tmp_path):
    os.utime(tmp_path / ".venv" / "installed", (0, 0))
    old = tmp_path / "python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    for python in (str(old), ""):
        result = make("setup", f"PYTHON={python}")
        assert result.returncode != 0
        assert "Python 3.10 or newer is needed" in result.stderr


def test_the_kind_of_a_config_is_an_option_of_no_other_target(make):
    assert arguments_of(make("config", "KIND=sweep"))[:2] == ["config", "sweep"]
    assert "--kind" in " ".join(arguments_of(make("train", "KIND=sweep")))


HOSTILE = (
    "$(shell touch executed)",
    "$$(touch executed)",
    "`touch executed`",
    "; touch executed",
    "' \"; touch executed #",
)
OWN = re.findall(r"^override (\w+)", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize(
    "name",
    ["PROMPT", "trainer.max_steps", "ARGS", "KIND", "PYTHON", "VENV", "OMP_NUM_THREADS", "HF_TOKEN", "MAKECMDGOALS"],
)
def test_no_variable_is_executed(make, tmp_path, name, value):
    make("sample", f"{name}={value}")
    make("config", f"{name}={value}")
    make("sample", **{name: value})
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", OWN)
def test_the_variables_of_the_makefile_cannot_be_replaced(make, tmp_path, name):
    assert len(OWN) > 10
    for value in HOSTILE[:2]:
        make("sample", f"{name}={value}")
        make("setup", **{name: value})
    assert not (tmp_path / "executed").exists()


def test_lines_and_quotation_marks_arrive_unchanged(make, tmp_path):
    text = "calm\n\"piano\"\tand 'more' $(shell touch executed)"
    words = json.loads(make("sample", f"PROMPT={text}", f"NAME={text}").stdout)
    assert sorted(words) == sorted(["sample", f"--prompt={text}", f"--name={text}"])
    words = arguments_of(make("train", """ARGS='a b' "c'd" $(shell touch executed) `id` $HOME ; x=1"""))
    assert words == ["train", "a b", "c'd", "$(shell", "touch", "executed)", "`id`", "$HOME", ";", "x=1"]
    assert "ARGS cannot be split into words: No closing quotation" in make("sample", "ARGS=it's").stderr
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("name", ["a;touch executed;", "a'b", "a`touch executed`", "a|b", "a&b"])
def test_a_name_with_other_characters_is_an_error(make, tmp_path, name):
    result = make("sample", f"{name}=1")
    assert result.returncode == 2 and not (tmp_path / "executed").exists()


def test_arguments_of_the_environment_are_not_options(make):
    assert arguments_of(make("train", ARGS="--dry-run", QD_ARGS="--x", KIND="sweep")) == ["train"]
    assert arguments_of(make("config", KIND="sweep", QD_KIND="sweep")) == ["config", "train"]
