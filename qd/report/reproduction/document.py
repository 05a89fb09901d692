"""Writes a page from the results of a plan: commands, times, figures, the table of claims, and every model."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from omegaconf import OmegaConf

from qd.evaluation.columns import METRICS
from qd.metrics.formatting import markdown_interval, markdown_table
from qd.report.data import ReportData, read_training
from qd.report.figures import FIGURES
from qd.report.page import caption
from qd.report.reproduction.claims import claims_table, judge
from qd.report.reproduction.measured import Measured, roles
from qd.report.reproduction.plan import ReproductionConfig, State, planned_runs, trained
from qd.runs.scalars import step_seconds

_DOCUMENT = """# {title}

Written from the results by `make reproduce CONFIG={config} ARGS="--only document{compare}"`.

## What was run

```
make reproduce CONFIG={config}
```

{notes}```yaml
{yaml}```

{others}## Time

The {points} points of the sweep took {sweep} in total, one after another.{times}

## Figures

{figures}

## The paper's claims

{claims}

## Every model

All models are sampled without guidance. Values are means over the prompts with 95 % bootstrap intervals. Runs with the
same β and different seeds show the variation between training runs; different sampling seeds of one model show the
variation of sampling.

{models}
"""


def write_document(
    plan: ReproductionConfig, path: Path, name: str = "default", others: Mapping[str, ReproductionConfig] | None = None
) -> Path:
    """Writes the page, and copies its figures into a folder with the same name next to it.

    Args:
        plan: The reproduction that the page describes.
        path: Path of the page.
        name: Name of the plan.
        others: Further attempts by name; the page also has their claims and models.

    Raises:
        ValueError: There are no results, or they are not comparable.
    """
    attempts = {name: plan, **(others or {})}
    results = {attempt: Measured(one.results, one.folder, one.betas) for attempt, one in attempts.items()}
    measured = results[name]
    seconds = sum({p.key: p.seconds for p in measured.points}.values())
    path.parent.mkdir(parents=True, exist_ok=True)
    text = _DOCUMENT.format(
        title="The reproduction" if name == "default" else f"The reproduction: {name}",
        config=name,
        compare=f" --compare {' '.join(others)}" if others else "",
        notes=f"{plan.notes.strip()}\n\n" if plan.notes.strip() else "",
        yaml=OmegaConf.to_yaml({key: value for key, value in asdict(plan).items() if key != "notes"}),
        others="".join(map(_other, others or {}, (others or {}).values())),
        points=len({point.key for point in measured.points}),
        sweep=f"{seconds / 60:.0f} minutes",
        times=_times(plan),
        figures=_figures(plan, path),
        claims=claims_table({attempt: judge(one) for attempt, one in results.items()}),
        models="\n\n".join(models_table(attempt, one) for attempt, one in results.items()),
    )
    path.write_text(text, encoding="utf-8")
    return path


def _other(name: str, plan: ReproductionConfig) -> str:
    notes = f"\n\n{plan.notes.strip()}" if plan.notes.strip() else ""
    return f"### Compared with: {name}\n\n```\nmake reproduce CONFIG={name}\n```{notes}\n\n"


def _times(plan: ReproductionConfig) -> str:
    """A table of the training times; empty if no run has its log."""
    step_times = {one.run.name: step_seconds(one.folder) if one.folder.is_dir() else None for one in planned_runs(plan)}
    if not any(step_times.values()):
        return ""
    rows = []
    for one in planned_runs(plan):
        seconds = step_times[one.run.name]
        times = [f"{seconds:.2f}", f"{seconds * one.steps / 60:.0f}"] if seconds else ["", ""]
        state = "" if one.state is State.DONE else f" ({one.state.value})"
        rows.append([one.run.name + state, f"{one.run.beta:g}", str(one.run.seed), str(one.steps), *times])
    table = markdown_table(["run", "β", "seed", "steps", "s per step", "minutes"], rows)
    return (
        " Each run is one\nsingle-threaded process. The time of a step is the median of the logged wall times, without "
        f"measurements during training.\n\n{table}"
    )


def _figures(plan: ReproductionConfig, page: Path) -> str:
    """Copies the report's pictures, and returns the Markdown that shows them in the order of the paper."""
    report = Path(plan.folder) / "report"
    drawn = [name for name in FIGURES if (report / f"{name}.png").is_file()]
    if not drawn:
        return f"None: `{report}` has no pictures."
    folder = page.with_suffix("")
    folder.mkdir(exist_ok=True)
    for name in drawn:
        shutil.copyfile(report / f"{name}.png", folder / f"{name}.png")
    data, training = ReportData(plan.results), [read_training(run) for run in trained(plan)]
    return "\n\n".join(_figure(folder.name, name, caption(data, name, training)) for name in drawn)


def _figure(folder: str, name: str, text: str) -> str:
    title = f"{name.replace('-', ' ').capitalize()}. {FIGURES[name].title}"
    return f"![{title}]({folder}/{name}.png)\n\n*{title.split('. ')[0]}. {text}*"


def models_table(attempt: str, measured: Measured) -> str:
    """A table of every unmerged model without guidance, with a row for each sampling seed."""
    alone = [p for p in measured.points if len(roles(p.model)) == 1 and p.guidance_scale == 1]
    alone = [point for point in alone if point.temperature == measured.temperature]
    distinct = {(next(iter(roles(point.model))), point.seed): point for point in reversed(alone)}
    rows = []
    for (role, seed), point in sorted(distinct.items(), key=lambda item: item[0]):
        fad = "" if point.fad is None else f"{point.fad:.3f}"
        rows.append([role, str(seed), *(markdown_interval(point.metrics[name]) for name in METRICS), fad])
    table, first = markdown_table(["model", "sampling seed", *METRICS, "FAD"], rows), measured.points[0]
    return (
        f"### Attempt: {attempt}\n\nProtocol `{first.protocol}`, {first.n_prompts} prompts × {first.n_samples} "
        f"samples, scorers `{first.scorers}`:\n\n{table}"
    )
