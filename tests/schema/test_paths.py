"""The home folder in options and settings that name files or folders."""

from __future__ import annotations

from dataclasses import is_dataclass
from typing import Any, get_args, get_type_hints

import pytest

from qd.cli.main import COMMANDS
from qd.cli.options import CommandParser
from qd.commands.config import SCHEMAS
from qd.config.loading import merge_config
from qd.config.policy import ModelConfig
from qd.config.train import TrainConfig
from qd.report.reproduction.plan import ReproductionConfig
from qd.schema.paths import expand_home
from qd.schema.setting import setting_of

NO_PATHS = {
    "name", "device", "negative_prompt", "revision", "column", "train_split", "validation_split", "text", "only",
    "overrides", "betas", "notes", "target_modules",
    "fingerprint",
}  # fmt: skip
"""Settings of text that name no file."""
NO_PATH_OPTIONS = {
    "prompt", "negative-prompt", "dtype", "device", "revision", "protocol", "scorers", "only", "name", "kind", "stage",
}  # fmt: skip


@pytest.fixture(autouse=True)
def home(monkeypatch) -> str:
    monkeypatch.setenv("HOME", "/home/me")
    return "/home/me"


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("~/music", "/home/me/music"),
        ("~", "/home/me"),
        ("clap:~/model", "clap:/home/me/model"),
        ("~/a:0.5 ~/b:0.5", "/home/me/a:0.5 /home/me/b:0.5"),
        ("~/p.csv:caption", "/home/me/p.csv:caption"),
        ("~nobody-here/a", "~nobody-here/a"),
        ("runs/a~/b", "runs/a~/b"),
        ("a ~ b", "a ~ b"),
        ("./~", "./~"),
        ("", ""),
    ],
)
def test_the_home_folder_is_expanded(text, expanded):
    assert expand_home(text) == expanded


def texts(schema: type) -> list[tuple[type, str]]:
    """The settings of text of a schema and of its groups."""
    found = []
    for name, kind in get_type_hints(schema).items():
        kinds = {kind, *get_args(kind), *(inner for arg in get_args(kind) for inner in get_args(arg))}
        found += [entry for inner in kinds if is_dataclass(inner) for entry in texts(inner)]
        if str in kinds and not any(is_dataclass(inner) for inner in kinds) and dict[str, Any] not in kinds:
            found.append((schema, name))
    return found


@pytest.mark.parametrize("schema", [*SCHEMAS.values(), ReproductionConfig], ids=lambda schema: schema.__name__)
def test_every_setting_of_text_is_a_path_or_is_known_not_to_be_one(schema):
    for owner, name in texts(schema):
        known = setting_of(owner, name)
        is_path = known is not None and known.path
        never = name in NO_PATHS and (owner, name) != (ModelConfig, "name")
        assert is_path != bool(never or known and known.choices), f"{owner.__name__}.{name}"


@pytest.mark.parametrize("command", COMMANDS.values(), ids=lambda command: command.name)
def test_every_option_of_text_is_a_path_or_is_known_not_to_be_one(command):
    parser = CommandParser(command)
    command.add(parser)
    for action in parser._actions:
        name = (action.option_strings or [action.dest])[0].lstrip("-")
        if action.nargs == 0 or action.type in (int, float) or action.dest in parser.keys or action.choices:
            continue
        assert (action.type is expand_home) != (name in NO_PATH_OPTIONS), f"{command.name} --{name}"


def test_settings_are_expanded_in_files_and_overrides(home, tmp_path):
    (tmp_path / "a.yaml").write_text("trainer: {runs: ~/runs}\nguidance: {negative_prompt: ~/loud}\n")
    problems: list[str] = []
    overrides = ["data.prompts=[{kind: csv, path: ~/p.csv}]", "reward.embedder=clap:~/clap"]
    config = merge_config(TrainConfig, "train", str(tmp_path / "a.yaml"), overrides, problems)
    assert problems == [] and config.trainer.runs == f"{home}/runs" and config.guidance.negative_prompt == "~/loud"
    assert config.data.prompts[0].path == f"{home}/p.csv" and config.reward.embedder == f"clap:{home}/clap"


def test_options_are_expanded(home):
    def values(command: str, *words: str) -> dict[str, Any]:
        return COMMANDS[command].parse(words).values

    words = ["--audio=~/music", "--reference", "~/ref", "--out=~/new/fad.json"]
    expected = {"audio": f"{home}/music", "reference": f"{home}/ref", "out": f"{home}/new/fad.json"}
    assert values("fad", *words) == expected
    assert values("sample", "--prompt", "~/calm", "--out=~/x")["prompt"] == "~/calm"
    assert values("merge", "--models", "~/a:0.5", "~/b:0.5")["models"] == [f"{home}/a:0.5", f"{home}/b:0.5"]
    assert values("merge", "--models=~/a:0.5 ~/b:0.5")["models"] == [f"{home}/a:0.5", f"{home}/b:0.5"]
    assert values("train", "--resume", "~/runs/x", "--config=~/a.yaml") == {
        "resume": f"{home}/runs/x", "config": f"{home}/a.yaml",
    }  # fmt: skip
