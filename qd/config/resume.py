"""The saved config of a run, and the settings that may change when the run resumes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from qd.config.loading import ConfigError, load_config, merge_config, stated_settings, to_yaml
from qd.runs.atomic import atomic_write
from qd.runs.folders import CONFIG

_LOGGED = (
    "trainer.device", "trainer.loggers", "trainer.logger_options", "trainer.log_every", "trainer.checkpoint_every",
    "trainer.checkpoint_minutes",
)  # fmt: skip
_MEASURED = ("evaluation.siblings", "evaluation.eval_batch_size")
_RANKS = ("trainer.devices", "trainer.num_nodes", "trainer.strategy")
_SAVED = ("trainer.max_steps", "trainer.save_weights_every", "trainer.keep_weights")
RESUMABLE = {"train": _LOGGED + _MEASURED + _SAVED + _RANKS, "embedder": _LOGGED}
"""Settings and groups of settings that may change when a run resumes, by the kind of its config.

Any other change would make it a different run. An embedder's ``max_steps`` cannot change: its learning rate and its
validations depend on it.
"""


ADDED = (
    "objective.shuffle_advantages", "evaluation.eval_batch_size", "evaluation.facets", "evaluation.clean_threshold",
    "evaluation.quality_threshold", "trainer.strategy", "trainer.checkpoint_minutes", "data.world",
    "augmentation.equaliser", "augmentation.high_pass", "augmentation.low_pass", "augmentation.room",
)  # fmt: skip
"""Beginnings of the settings that the configs of earlier versions lack; they have their defaults. A new setting belongs
here."""


def save_config(config: Any, run: Path) -> None:
    """Writes the resolved config of a run atomically; ``load_config`` with this file builds it again."""
    with atomic_write(run / CONFIG) as temporary:
        temporary.write_text(to_yaml(config), encoding="utf-8")


def resumed_config(
    schema: type, kind: str, run: Path, overrides: Sequence[str] = (), overlay: str | None = None
) -> Any:
    """Returns the config of a resumed run: its own, with the overrides.

    Args:
        schema: Schema of the config.
        kind: Key of :data:`RESUMABLE`.
        run: Folder of the run, which may have been moved or renamed.
        overrides: Dotted keys; they may repeat any setting, and change those in :data:`RESUMABLE`.
        overlay: Overlay of the command line; a resumed run cannot have one, so any overlay is a problem.

    Raises:
        ConfigError: Names every bad value, and every setting that would make it a different run.
    """
    source = str(run / CONFIG)
    place = [f"{key}={json.dumps(value)}" for key, value in {"name": run.name, "trainer.runs": str(run.parent)}.items()]
    saved, allowed = _saved(schema, kind, run, place), RESUMABLE[kind]
    stray = [f"config is {overlay!r}, but a resumed run keeps its own config; remove CONFIG"] if overlay else []

    def check(config: Any) -> list[str]:
        return [
            *stray,
            *(f"{text}; remove it, or start a new run" for text in _changes(saved, asdict(config), allowed)),
        ]

    return load_config(schema, kind, source, [*place, *overrides], [check])


def changes(run: Path, wanted: Any, kind: str) -> list[str]:
    """One phrase for each setting in which ``wanted`` differs from a run, apart from its name, folder and precision."""
    elsewhere = ["name", "trainer.runs", "trainer.precision"]
    return _changes(_saved(type(wanted), kind, run), asdict(wanted), [*RESUMABLE[kind], *elsewhere])


def _saved(schema: type, kind: str, run: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The config of a run, unchecked: an override may replace the device of another machine."""
    problems: list[str] = []
    config = asdict(merge_config(schema, kind, str(run / CONFIG), overrides, problems))
    if problems := problems or _incomplete(schema, run / CONFIG, config):
        raise ConfigError(problems)
    return config


def _incomplete(schema: type, file: Path, config: Mapping[str, Any]) -> list[str]:
    """One sentence if the file lacks settings: with their defaults, it would be another run."""
    stated = dict(_leaves(stated_settings(schema, file)))
    missing = [key for key, _ in _leaves(config) if key not in stated and not key.startswith(ADDED)]
    if not missing and file.read_text(encoding="utf-8").endswith("\n"):
        return []
    lacks = f"lacks {', '.join(missing[:3])}{', …' if len(missing) > 3 else ''}" if missing else "ends within a line"
    return [
        f"{file} {lacks}; it is incomplete, and defaults would make another run: restore it from a copy, or from "
        "`config` in the recipe.yaml of a step folder"
    ]


def _changes(saved: Mapping[str, Any], wanted: Mapping[str, Any], allowed: Sequence[str]) -> list[str]:
    before, after = dict(_leaves(saved)), dict(_leaves(wanted))
    return [
        f"{key} is {after.get(key)!r}, and this run has {before.get(key)!r}"
        for key in before | after
        if before.get(key) != after.get(key) and not any(key == a or key.startswith(f"{a}.") for a in allowed)
    ]


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted paths and values; a list is one value."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
