"""The report as Markdown and as one self-contained HTML page."""

from __future__ import annotations

import base64
import html
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from qd.report.data import ReportData, Training
from qd.report.figures import FIGURES
from qd.report.listening import listening
from qd.report.tables import TABLES, Table

_STYLE = """
body { font: 16px/1.5 Georgia, serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #111; }
h1, h2, th, figcaption { font-family: Helvetica, Arial, sans-serif; }
figure { margin: 2rem 0; } img { max-width: 100%; } figcaption, .note { font-size: .85rem; color: #444; }
table { border-collapse: collapse; font-size: .85rem; } th, td { padding: .25rem .7rem; text-align: left; }
td { vertical-align: top; }
thead { border-bottom: 2px solid #111; } tbody tr { border-bottom: 1px solid #ddd; }
audio { width: 11rem; height: 2rem; } .prompt { min-width: 14rem; } .scroll { overflow-x: auto; }
"""


def caption(data: ReportData, name: str, runs: Sequence[Training] = ()) -> str:
    """The caption of a figure: what it shows, and how that was measured.

    Args:
        data: The report's data.
        name: A key of :data:`~qd.report.figures.FIGURES`.
        runs: Runs that the figures of training show.
    """
    drawing, point = FIGURES[name], data.points[0]
    measured = f"Protocol {data.protocol}: {point.n_prompts} prompts × {point.n_samples} samples, {_seeds(data)}"
    if drawing.trained and runs:
        during = runs[0].points[0]
        training = (
            f"During training, protocol {during.protocol}: {during.n_prompts} prompts × {during.n_samples} samples"
        )
        measured = f"{training}. On the right, {measured[0].lower()}{measured[1:]}" if name == "figure-1" else training
    return f"{drawing.title} {measured}. Error bars: 95 % bootstrap intervals over the prompts."


def _seeds(data: ReportData) -> str:
    """``sampling seed 0 (betas: 0, 1)``: the seeds of most series, and of those that differ."""
    seeds = {name: sorted({one.seed for one in data.points if one.series == name}) for name in data.names}
    listed = {name: ", ".join(map(str, values)) for name, values in seeds.items()}
    usual, _ = Counter(listed.values()).most_common(1)[0]
    others = "; ".join(f"{name or 'no series'}: {text}" for name, text in listed.items() if text != usual)
    return f"sampling seed {usual}" + (f" ({others})" if others else "")


def markdown(
    data: ReportData, captions: Mapping[str, str], tables: Mapping[str, Table], left_out: Mapping[str, str]
) -> str:
    """The report as Markdown; its image files are in the same folder.

    Args:
        data: The report's data.
        captions: Captions of the drawn figures, by name.
        tables: Tables by name.
        left_out: For each figure or table that was not made, what it needs.
    """
    parts = ["# Report", f"Points: `{data.results.points.path.name}`. Scorers: {data.scorers}."]
    parts += [f"## {_title(name)}\n\n![{FIGURES[name].title}]({name}.png)\n\n{text}" for name, text in captions.items()]
    parts += [f"## {_title(name)}\n\n{TABLES[name].title}\n\n{table.markdown()}" for name, table in tables.items()]
    if left_out:
        parts.append("## Not measured\n\n" + "\n".join(f"- {_title(name)}: {why}" for name, why in left_out.items()))
    return "\n\n".join(parts) + "\n"


def page(
    data: ReportData,
    folder: Path,
    captions: Mapping[str, str],
    tables: Mapping[str, Table],
    left_out: Mapping[str, str],
) -> str:
    """The report as one HTML page with embedded images and sounds; it can be sent and opened offline."""
    parts = ["<h1>Report</h1>", f"<p class=note>Scorers: {html.escape(data.scorers)}.</p>"]
    for name, text in captions.items():
        image = _data_url(folder / f"{name}.png", "image/png")
        parts.append(
            f'<figure id="{name}"><h2>{_title(name)}</h2><img alt="{html.escape(FIGURES[name].title)}" src="{image}">'
            f"<figcaption>{html.escape(text)}</figcaption></figure>"
        )
    parts += [f'<h2 id="{name}">{_title(name)}</h2><p>{html.escape(TABLES[name].title)}</p>{_table(table)}'
              for name, table in tables.items()]  # fmt: skip
    if left_out:
        lines = "".join(f"<li>{_title(name)}: {html.escape(why)}</li>" for name, why in left_out.items())
        parts.append(f"<h2>Not measured</h2><ul>{lines}</ul>")
    parts.append(listening(data))
    body = "\n".join(parts)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Quality and diversity</title><style>{_STYLE}</style><body>{body}</body></html>\n"
    )


def _table(table: Table) -> str:
    header = "".join(f"<th>{html.escape(text)}</th>" for text in table.header)
    rows = "".join("<tr>" + "".join(f"<td>{html.escape(text)}</td>" for text in row) + "</tr>" for row in table.rows)
    return f"<div class=scroll><table><thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table></div>"


def _title(name: str) -> str:
    return name.replace("-", " ").capitalize()


def _data_url(path: Path, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
