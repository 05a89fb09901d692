"""``qd config``: the documented YAML loads again, and the reference page in docs/ is current."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from qd.cli import main as cli
from qd.commands.config import SCHEMAS, reference_page
from qd.config.documentation import documented_yaml, entries
from qd.config.loading import config_folder, element_type, merge_config

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = [(path.parent.name, path.stem) for kind in SCHEMAS for path in sorted(config_folder().glob(f"{kind}/*.yaml"))]


def merged(kind: str, name: str | None, *overrides: str) -> Any:
    problems: list[str] = []
    config = merge_config(SCHEMAS[kind], kind, name, overrides, problems)
    assert problems == []
    return config


def documented(config: Any, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """The dotted path of each setting of a config, and whether it has a help text."""
    for entry in entries(config):
        path = f"{prefix}{entry.name}"
        group = entry.kind if is_dataclass(entry.kind) else element_type(entry.kind)
        if is_dataclass(group):
            assert group.__doc__ and not group.__doc__.startswith(f"{group.__name__}("), path
            yield from documented(group(), f"{path}.")
        else:
            yield path, entry.setting is not None and bool(re.fullmatch(r"[A-Z(].*[.)]", entry.setting.help))


@pytest.mark.parametrize("kind", SCHEMAS)
def test_every_setting_has_a_help_text_that_is_a_sentence(kind):
    assert [path for path, complete in documented(SCHEMAS[kind]()) if not complete] == []


@pytest.mark.parametrize(("kind", "name"), [*SHIPPED, ("evaluate", None)])
def test_a_printed_config_loads_again(kind, name, tmp_path, capsys):
    assert cli.main(["config", kind, *(["--config", name] if name else [])]) == 0
    file = tmp_path / "printed.yaml"
    file.write_text(capsys.readouterr().out, encoding="utf-8")
    assert merged(kind, str(file)) == merged(kind, name)


def test_awkward_values_load_again(tmp_path):
    words = ["name=1e3", "guidance.negative_prompt='null: # \"x\"'", "trainer.logger_options={csv: {a: [1, {b: c}]}}"]
    words += ["model.lora.rank=4", "optimizer.learning_rate=1e-7", "data.prompts=[{}, {kind: text, path: 'on'}]"]
    config = merged("train", None, *words, "trainer.loggers=[]")
    file = tmp_path / "printed.yaml"
    file.write_text(documented_yaml(config), encoding="utf-8")
    assert merged("train", str(file)) == config


def test_every_line_has_a_text_above_it(capsys):
    assert cli.main(["config", "train", "beta=3"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines() if line]
    at = lines.index("beta: 3.0")
    assert lines[at - 1].startswith("# Weight β") and lines[at - 1].endswith("[≥ 0]")
    assert "#   rank: 16" in lines  # of model.lora, which is null


def test_bad_overrides_are_reported_but_models_are_not_checked(capsys):
    assert cli.main(["config", "train", "trainer.max_step=3", "beta=-1", "model.name=nowhere"]) == 2
    error = capsys.readouterr().err
    assert "2 problems" in error and "'trainer.max_steps'" in error and "beta is -1.0" in error


@pytest.mark.parametrize(("words", "expected"), [(["trian"], "did you mean 'train'?"), ([], "expected one of train")])
def test_an_unknown_or_missing_kind_is_an_error(words, expected, capsys):
    assert cli.main(["config", *words]) == 2
    assert expected in capsys.readouterr().err


def test_the_reference_page_is_current():
    """If it is not: ``.venv/bin/qd config --markdown > docs/settings.md``."""
    assert (ROOT / "docs" / "settings.md").read_text(encoding="utf-8") == reference_page()


def test_the_printed_config_is_plain_yaml(capsys):
    assert cli.main(["config", "train"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["trainer"]["max_steps"] == 2000
