"""``qd ship``: stores the weights of a run as the shipped model ``beta0`` or ``beta15``."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from qd.evaluation.points import FILE, Point, PointsFile, comparable
from qd.metrics.formatting import bullet_list
from qd.models.checkpoints.resolver import FINETUNED, shipped_folder
from qd.models.checkpoints.weight_delta import DELTA_FILE, DESCRIPTIONS, write_delta
from qd.models.merging.sources import RECIPE, Source, merge_problems, open_source
from qd.report.cards.model import README, front_matter, measured_table, origin
from qd.runs.atomic import atomic_folder
from qd.runs.scalars import step_seconds

MAX_ERROR = 0.01
"""Largest relative error of the 8-bit difference."""

_CARD = """# Built-in model {name}: text to music without guidance

The decoder of the built-in base model after a run with β = {beta:g}, stored as the difference to the base, in 8 bits a
weight with a scale for each row. The loss is {error:.2%} of the difference (root mean square). `MODEL={name}` restores
it.

| | |
|---|---|
| command | `make train CONFIG=<the config below> ARGS="trainer.max_steps={step}"` |
| run | {run}, step {step} of {max_steps} |
| seed | {seed} |
| data | {data}; {batch_size} sequences of {seconds:g} s a step |
| teacher | {teacher} |
| time | {time} |

## Measured

{measured}

## Config

```yaml
{yaml}```
"""


def ship(model: str, name: str, points: str | Path | None = None) -> Path:
    """Writes a finetuned model's difference to the base, with its card, where the resolver looks for shipped models.

    Args:
        model: A step of a training run; any name for ``qd.models.checkpoints.resolver.resolve_model``.
        name: Name of the shipped model; see ``qd.models.checkpoints.resolver.FINETUNED``.
        points: File with the measurements for the card; the run's own if None.

    Returns:
        The new folder.

    Raises:
        ValueError: The name is unknown or already exists, the model is not from a training run or not from the base,
            a weight is not finite, or 8 bits lose more than ``MAX_ERROR`` of the difference.
    """
    if name not in FINETUNED:
        raise ValueError(f"name is {name!r}; expected one of {', '.join(FINETUNED)}")
    folder = shipped_folder(name)
    if folder.exists():
        raise ValueError(f"'{folder}' exists already; remove it to ship another model under that name")
    source, base = open_source(model, 1.0), open_source("base", 1.0)
    if (source.recipe or {}).get("kind") != "distillation":
        raise ValueError(f"model '{model}' has no {RECIPE} of a training run; ship a step of a run: runs/<run>/step-…")
    if problems := merge_problems([base, source]):
        raise ValueError(bullet_list(f"model '{model}' is not a sibling of the base:", problems, len(problems)))
    measured = _measured(source, name, Path(points) if points else source.folder.parent / FILE)
    with atomic_folder(folder) as temporary:
        _write(source, base.folder, temporary, name, measured)
    return folder


def _write(source: Source, base: Path, folder: Path, name: str, measured: str) -> None:
    error = write_delta(folder / DELTA_FILE, source.folder, base)
    if not error <= MAX_ERROR:  # also where it is not a number
        raise ValueError(
            f"8 bits lose {error:.1%} of the difference of '{source.name}' to the base; expected {MAX_ERROR:.0%} or "
            "less. Are its weights finite?"
        )
    for file in DESCRIPTIONS:
        shutil.copyfile(source.folder / "decoder" / file, folder / file)
    recipe = _portable(source.recipe)
    OmegaConf.save(OmegaConf.create(recipe), folder / RECIPE)
    card = _card(recipe, name, error, measured, step_seconds(source.folder.parent))
    (folder / README).write_text(front_matter([origin("base")]) + card, encoding="utf-8")


def _portable(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The recipe without the paths of this machine: those of the runs folder and of prompt files."""
    config = recipe["config"]
    prompts = [
        source | ({"path": Path(source["path"]).name} if source.get("path") else {})
        for source in config["data"]["prompts"]
    ]
    portable = {"trainer": config["trainer"] | {"runs": "runs"}, "data": config["data"] | {"prompts": prompts}}
    return dict(recipe) | {"config": config | portable}


def _card(recipe: Mapping[str, Any], name: str, error: float, measured: str, seconds: float | None) -> str:
    config, step = recipe["config"], recipe["step"]
    guidance, negative = config["guidance"], config["guidance"]["negative_prompt"]
    return _CARD.format(
        name=name,
        beta=config["beta"],
        error=error,
        run=recipe["run"],
        step=step,
        max_steps=config["trainer"]["max_steps"],
        seed=config["seed"],
        data=", ".join(_prompts(source) for source in config["data"]["prompts"]),
        batch_size=config["data"]["batch_size"],
        seconds=config["rollout"]["seconds"],
        teacher=f"γ = {guidance['scale']:g}, {'unconditional' if negative is None else f'against “{negative}”'}",
        time=f"{seconds:.2f} s a step, {seconds * step / 60:.0f} minutes" if seconds else "not logged",
        measured=measured,
        yaml=OmegaConf.to_yaml(OmegaConf.create(dict(config))),
    )


def _prompts(source: Mapping[str, Any]) -> str:
    name = source["kind"] + (f" {source['path']}" if source.get("path") else "")
    return f"{source['size']} prompts of {name}" if source.get("size") else f"prompts of {name}"


def _measured(source: Source, name: str, file: Path) -> str:
    """The table of the measurement without guidance, at the temperature of the rollouts.

    Of several measurements it shows the one with the most clips, then the lowest seed, then the last one; above it the
    base model's, if it has the same protocol, scorers and seed.
    """
    temperature = source.recipe["config"]["rollout"]["temperature"]
    points = [p for p in PointsFile(file).read() if (p.guidance_scale, p.temperature) == (1, temperature)]
    own = [point for point in points if _is_of(point, source, name)]
    if not own:
        return f"Not measured without guidance at T = {temperature:g}."
    chosen = max(reversed(own), key=lambda point: (point.n_prompts * point.n_samples, -point.seed))
    alike = [point for point in points if comparable(point, chosen) and point.seed == chosen.seed]
    base = [point for point in alike if point.model == "base"]
    return measured_table({**({"base": base[-1]} if base else {}), name: chosen})


def _is_of(point: Point, source: Source, name: str) -> bool:
    recipe = source.recipe
    names = (name, source.name, str(source.folder), str(source.folder.parent))
    by_name = point.run == recipe["run"] or point.model in names
    return by_name and point.step == recipe["step"] and point.lam is None
