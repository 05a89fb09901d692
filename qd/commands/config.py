"""``qd config``: prints a config with the documentation of all its settings, or the reference page of `qd train`."""

from __future__ import annotations

from collections.abc import Sequence

from qd.commands.base import BaseConfig
from qd.config.checks import one_of
from qd.config.documentation import documented_yaml, markdown_tables
from qd.config.embedder import EmbedderTrainConfig
from qd.config.headroom import HeadroomConfig
from qd.config.loading import ConfigError, merge_config
from qd.config.measuring import EvaluateConfig
from qd.config.sweep import SweepConfig
from qd.config.train import TrainConfig
from qd.schema.checker import value_problems

SCHEMAS = {
    "train": TrainConfig,
    "embedder": EmbedderTrainConfig,
    "evaluate": EvaluateConfig,
    "sweep": SweepConfig,
    "headroom": HeadroomConfig,
    "base": BaseConfig,
}
"""Schemas by the kind of config, which is also a folder in configs/."""
COMMANDS = {"embedder": "train-embedder"}
"""Commands whose name is not the kind of their config."""
INTRODUCTION = """# Settings

Every setting of `qd train`, with its default and its range. `qd config --markdown` generates this page.
`qd config embedder`, `evaluate`, `sweep`, `headroom` and `base` print the settings of the other commands.

A setting is set by a YAML file (`--config`, `CONFIG=` in make) or by a word `key=value` with its dotted key:
`qd train trainer.max_steps=200`, or `make train trainer.max_steps=200`. `qd config train` prints the default
config with these texts as comments; a file needs only the settings that differ from it.
"""


def print_config(
    kind: str | None = None, *, config: str | None = None, markdown: bool = False, overrides: Sequence[str] = ()
) -> None:
    """Prints a documented config, which ``load_config`` reads again, or the reference page.

    Args:
        kind: Kind of the config, in :data:`SCHEMAS`.
        config: Overlay: the name of a file in configs/<kind>/, or the path of a YAML file.
        markdown: Print the reference page of `qd train` instead.
        overrides: Settings by dotted keys: ``["trainer.max_steps=200"]``.

    Raises:
        ConfigError: A key is unknown, or a value has a wrong type or is out of range. Files and models are not
            checked.
        ValueError: The kind is missing or unknown.
    """
    if markdown:
        print(reference_page(), end="")
        return
    if kind is None:
        raise ValueError(f"no kind of config; expected one of {', '.join(SCHEMAS)}: qd config train")
    if problems := one_of("the kind of config", kind, SCHEMAS):
        raise ValueError(problems[0])
    found = merge_config(SCHEMAS[kind], kind, config, overrides, problems)
    if problems := [*problems, *value_problems(found)]:
        raise ConfigError(problems)
    print(f"# Settings of `qd {COMMANDS.get(kind, kind)}`.\n{documented_yaml(found)}", end="")


def reference_page() -> str:
    """The text of docs/settings.md."""
    return f"{INTRODUCTION}\n{markdown_tables('`qd train`', TrainConfig)}".rstrip("\n") + "\n"
