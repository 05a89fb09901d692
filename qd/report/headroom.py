"""The table and the figure of `qd headroom`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from qd.evaluation.figures import AXES, STYLES
from qd.metrics.bootstrap import bootstrap_interval
from qd.metrics.formatting import markdown_interval, markdown_table
from qd.metrics.headroom import MIN_EFFECTIVE_SAMPLES, PerPrompt, gain_over_front
from qd.runs.atomic import atomic_write
from qd.runs.printable import printable

DIVERSITIES = ("diversity", "diversity_heldout")
KINDS = {
    "guidance": "base model with guidance",
    "optimum": "optimum of the objective",
    "model": "trained models",
}
LABELS = {"guidance": ((-6, -9), "right"), "optimum": ((6, 3), "left"), "model": ((0, -20), "center")}
"""Offset of a label from its point, in points, and its alignment."""
COLUMNS = (
    "policy",
    "KL to the teacher, nats a clip",
    "diversity",
    "diversity, held-out embedder",
    "quality",
    "quality minus guidance's, at equal diversity",
    "the same, held-out embedder",
    "quality minus the optimum's, at equal diversity",
    "effective samples",
)


@dataclass(frozen=True)
class Row:
    """One policy.

    Attributes:
        kind: A key of :data:`KINDS`: the optimum at a β, the base model at a γ, or a trained model.
        label: Name in the table and in the figure.
        metrics: Values for each prompt.
    """

    kind: str
    label: str
    metrics: PerPrompt


def write_headroom(folder: Path, title: str, rows: Sequence[Row]) -> None:
    """Prints the table, and writes it with the figure and the values of each prompt into a folder."""
    text = headroom_report(title, rows)
    with atomic_write(folder / "headroom.json") as file:
        values = [
            {"kind": row.kind, "label": row.label, **{name: v.tolist() for name, v in row.metrics.items()}}
            for row in rows
        ]
        file.write_text(json.dumps({"title": title, "rows": values}) + "\n", encoding="utf-8")
    with atomic_write(folder / "headroom.png") as file:
        headroom_figure(rows).savefig(file, dpi=150, format="png")
    with atomic_write(folder / "headroom.md") as file:
        file.write_text(text, encoding="utf-8")
    print(printable(text))


def headroom_report(title: str, rows: Sequence[Row]) -> str:
    """Returns a Markdown table with 95 % bootstrap intervals over prompts, and a warning about unreliable estimates."""
    front = [row.metrics for row in rows if row.kind == "guidance"]
    estimates = [row for row in rows if row.kind == "optimum"]
    lines = []
    for row in rows:
        estimated = row.kind == "optimum"
        metrics = [markdown_interval(bootstrap_interval(row.metrics[name])) for name in (*DIVERSITIES, "quality")]
        gains = ["" if row.kind == "guidance" else _gain(row.metrics, front, name) for name in DIVERSITIES]
        loss = "" if estimated else _gain(row.metrics, [one.metrics for one in estimates])
        kl = f"{row.metrics['kl'].mean():.2f}" if estimated else ""
        size = f"{row.metrics['effective_samples'].mean():.0f}" if estimated else ""
        lines.append([row.label, kl, *metrics, *gains, loss, size])
    few = [row.label for row in estimates if row.metrics["effective_samples"].mean() < MIN_EFFECTIVE_SAMPLES]
    warning = ""
    if few:
        warning = (
            f"\nWarning: fewer than {MIN_EFFECTIVE_SAMPLES} effective samples, so the estimate is not reliable: "
            f"{'; '.join(few)}. Draw more samples (samples=…).\n"
        )
    return f"# What the objective can reach\n\n{title}\n\n{markdown_table(COLUMNS, lines)}\n{warning}"


def headroom_figure(rows: Sequence[Row]) -> Figure:
    """Draws diversity against quality, for the embedder of the reward and for the other one."""
    figure = Figure(figsize=(11.0, 5.0), layout="constrained")
    for axes, diversity in zip(figure.subplots(1, 2, sharex=True), DIVERSITIES, strict=True):
        for kind, (colour, line, marker) in zip(KINDS, STYLES, strict=False):
            drawn = [row for row in rows if row.kind == kind]
            x, y = ([row.metrics[name].mean() for row in drawn] for name in ("quality", diversity))
            axes.plot(x, y, color=colour, ls="none" if kind == "model" else line, marker=marker, label=KINDS[kind])
            offset, side = LABELS[kind]
            for row, place in zip(drawn, zip(x, y, strict=True), strict=True):
                label = row.label.removeprefix("optimum, ")
                axes.annotate(label, place, offset, textcoords="offset points", ha=side, fontsize=7)
        axes.set(xlabel=AXES["quality"], ylabel=AXES[diversity])
        axes.margins(0.12)
    figure.axes[0].legend(fontsize=8)
    return figure


def _gain(metrics: PerPrompt, front: Sequence[PerPrompt], diversity: str = "diversity") -> str:
    gain = gain_over_front(metrics, front, diversity) if front else None
    return "outside its range" if gain is None else markdown_interval(gain, 2)
