"""Run folders: their names, their making, their newest checkpoint, and the room that they need on the disk."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from difflib import get_close_matches
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch

from qd.config import load_config, to_yaml
from qd.disk import free_space
from qd.logged import read_scalars

CONFIG = "config.yaml"
CHECKPOINT = "last.ckpt"
FLOAT32_BYTES = 4
LOGS_BYTES = 200 * 2**20  # TensorBoard events with audio and figures, generously

_LOOKED_AT = (
    "trainer.device", "trainer.loggers", "trainer.logger_options", "trainer.log_every", "trainer.checkpoint_every",
)  # fmt: skip
_MEASURED = ("evaluation.siblings", "evaluation.batch_rows")
_RANKS = ("trainer.devices", "trainer.num_nodes", "trainer.strategy")
_KEPT = ("trainer.max_steps", "trainer.save_weights_every", "trainer.keep_weights")
RESUMABLE = {"train": _LOOKED_AT + _MEASURED + _KEPT + _RANKS, "embedder": _LOOKED_AT}
"""Settings, and groups of settings, that may change when a run goes on, by the kind of its config; any other would make
it another run.

An embedder's ``max_steps`` is none of them: its learning rate and its validations follow from it.
"""


def run_name(label: str, now: datetime | None = None) -> str:
    """The default name of a run: what it is, and when it began: ``beta15-20260102-1530``."""
    return f"{label}-{now or datetime.now():%Y%m%d-%H%M}"


def taken(runs: str | Path, name: str | None) -> list[str]:
    """One sentence if a run of that name exists, for a list of problems."""
    folder = Path(runs) / (name or "")
    if not name or not folder.exists():
        return []
    return [f"run folder {str(folder)!r} exists already; choose another NAME, or go on with that run: RESUME={folder}"]


def create_run(runs: str | Path, name: str | None, label: str) -> Path:
    """Makes the folder of a new run.

    Args:
        runs: the folder of run folders; made if needed.
        name: of the run, or None for a default name, which gets a number if another run has taken it in this minute.
        label: what the run is, for the default name.

    Raises:
        ValueError: the run exists already, or the folder cannot be made.
    """
    default = run_name(label)
    candidates = [name] if name else [default, *(f"{default}-{number}" for number in range(2, 100))]
    for candidate in candidates:
        folder = Path(runs) / candidate
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise ValueError(f"run folder {str(folder)!r} cannot be made: {error}") from error
        return folder
    raise ValueError(*taken(runs, candidates[-1]))


def find_run(run: str | Path, runs: str | Path = "runs") -> Path:
    """The folder of a run to go on with, given as a folder or as a name in ``runs``.

    Raises:
        ValueError: there is no such run, or it was stopped before its config was saved.
    """
    folder = next((path for path in (Path(run), Path(runs) / run) if path.is_dir()), None)
    if folder is None:
        present = sorted(path.name for path in Path(runs).glob("*") if (path / CONFIG).is_file())
        nearest = get_close_matches(Path(run).name, present, n=1) or present[-3:]
        raise ValueError(f"there is no run {str(run)!r}; in {str(runs)!r}: {', '.join(nearest) or 'none'}")
    if not (folder / CONFIG).is_file():
        raise ValueError(f"{str(folder)!r} is no run folder: {CONFIG} is missing; start a new run")
    return folder


def newest_checkpoint(run: Path) -> Path:
    """The file that a run is resumed from.

    Raises:
        ValueError: the run has not written one yet.
    """
    checkpoint = run / CHECKPOINT
    if not checkpoint.is_file():
        raise ValueError(
            f"run {str(run)!r} has no {CHECKPOINT} yet, so it cannot be resumed; start it under another name"
        )
    return checkpoint


def checkpoint_step(file: Path) -> int:
    """Optimiser steps that a checkpoint has behind it; its tensors are not read."""
    return torch.load(file, map_location="cpu", weights_only=True, mmap=True)["global_step"]


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


def step_seconds(run: Path) -> float | None:
    """Median seconds of an optimiser step, by the clock of the TensorBoard events; None if it was not logged there.

    A median, because a measurement or a pause lies between some of the steps.
    """
    logged = sorted(read_scalars(run).get("train/loss", {}).items())
    rates = [(b.wall_time - a.wall_time) / (step - before) for (before, a), (step, b) in pairwise(logged)]
    return median(rates) if rates else None


def save_config(config: Any, run: Path) -> None:
    """Writes the resolved config of a run, whole or not at all; ``load_config`` with this file builds it again."""
    unfinished = (run / CONFIG).with_suffix(".tmp")
    unfinished.write_text(to_yaml(config), encoding="utf-8")
    unfinished.replace(run / CONFIG)


def disk_needed(trained: int, frozen: int, step_folders: int) -> int:
    """Bytes that a run writes at most.

    Args:
        trained: parameters that the optimiser changes.
        frozen: the other parameters of the checkpoint: text encoder and codec.
        step_folders: how many are kept.
    """
    step_folder = (trained + frozen) * FLOAT32_BYTES
    resume_file = 3 * trained * FLOAT32_BYTES  # weights and AdamW's two moments
    return (
        (step_folders + 1) * step_folder + 2 * resume_file + LOGS_BYTES
    )  # the next one is written before the old goes


def held_bytes(run: Path | None) -> int:
    """What a run folder holds; of none, nothing."""
    return sum(path.stat().st_size for path in run.rglob("*") if path.is_file()) if run else 0


def check_disk(runs: str | Path, needed: int, run: Path | None = None) -> None:
    """Refuses to start, or to go on with, a run that the disk cannot hold.

    Args:
        runs: the folder of run folders.
        needed: bytes of the whole run.
        run: folder of a run that goes on; what it holds already is not needed again.

    Raises:
        ValueError: fewer bytes than are needed are free where ``runs`` is, or will be.
    """
    held = held_bytes(run)
    missing = needed - held
    folder, free = free_space(runs)
    if free < missing:
        raise ValueError(
            f"the run needs {missing / 2**30:.1f} GiB{' more' if held else ''} and {str(folder)!r} has "
            f"{free / 2**30:.1f} GiB free; make room, name another trainer.runs, or keep fewer step folders "
            "(trainer.keep_weights)"
        )
