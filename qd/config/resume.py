"""The saved config of a run, and what of it may change when the run goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from qd.config.loading import load_config, to_yaml
from qd.runs.atomic import atomic_write
from qd.runs.folders import CONFIG

_LOOKED_AT = (
    "trainer.device", "trainer.loggers", "trainer.logger_options", "trainer.log_every", "trainer.checkpoint_every",
)  # fmt: skip
_MEASURED = ("evaluation.siblings", "evaluation.eval_batch_size")
_RANKS = ("trainer.devices", "trainer.num_nodes", "trainer.strategy")
_KEPT = ("trainer.max_steps", "trainer.save_weights_every", "trainer.keep_weights")
RESUMABLE = {"train": _LOOKED_AT + _MEASURED + _KEPT + _RANKS, "embedder": _LOOKED_AT}
"""Settings, and groups of settings, that may change when a run goes on, by the kind of its config; any other would make
it another run.

An embedder's ``max_steps`` is none of them: its learning rate and its validations follow from it.
"""


def save_config(config: Any, run: Path) -> None:
    """Writes the resolved config of a run, whole or not at all; ``load_config`` with this file builds it again."""
    with atomic_write(run / CONFIG) as temporary:
        temporary.write_text(to_yaml(config), encoding="utf-8")


def resumed_config(
    schema: type, kind: str, run: Path, overrides: Sequence[str] = (), overlay: str | None = None
) -> Any:
    """The config that a run goes on with: its own, with the overrides.

    Args:
        schema: of the config. kind: key of :data:`RESUMABLE`.
        run: its folder, which may have been moved or renamed.
        overrides: dotted keys; what they change must be resumable, what they repeat is fine.
        overlay: of a new run. There is no place for one, so that it is a problem if it is given.

    Raises:
        ConfigError: names every bad value, and every setting that would make it another run.
    """
    source = str(run / CONFIG)
    place = [f"{key}={json.dumps(value)}" for key, value in {"name": run.name, "trainer.runs": str(run.parent)}.items()]
    saved, allowed = _saved(schema, kind, run, place), RESUMABLE[kind]
    stray = [f"config is {overlay!r}, and a run goes on with its own; leave out CONFIG"] if overlay else []

    def check(config: Any) -> list[str]:
        return [
            *stray,
            *(f"{text}; leave it out, or start a new run" for text in _changes(saved, asdict(config), allowed)),
        ]

    return load_config(schema, kind, source, [*place, *overrides], [check])


def changes(run: Path, wanted: Any, kind: str) -> list[str]:
    """One phrase for each setting that makes ``wanted`` another run than this one, wherever and on what it was made."""
    elsewhere = ["name", "trainer.runs", "trainer.precision"]
    return _changes(_saved(type(wanted), kind, run), asdict(wanted), [*RESUMABLE[kind], *elsewhere])


def _saved(schema: type, kind: str, run: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The config of a run, valid here or not: an override may mend the device of another machine."""

    class Saved(schema):
        def problems(self) -> list[str]:
            return []

    return asdict(load_config(Saved, kind, str(run / CONFIG), overrides))


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
