"""Audio players on the report's page, with the samples of a prompt side by side."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from qd.audio.files import playable
from qd.evaluation.results import NotMeasuredError
from qd.report.data import ReportData, Setting
from qd.report.headline import headline
from qd.report.labels import model_label

_NOTE = "The sound on this page is compressed; lossless files are next to the results file."
_SIDE_BY_SIDE = "Samples of one prompt are side by side: the less similar they sound, the higher the diversity."


def listening(data: ReportData) -> str:
    """HTML with players: all saved prompts for the models that the tables compare, one prompt for every other point.

    A page with every clip of every point would be too large to send.
    """
    compared = _compared(data)
    rows, done, widest = [], set(), 0
    for name in data.names:
        for setting in data.series(name):
            if setting.point.key in done or not (clips := data.clips(setting)):
                continue
            done.add(setting.point.key)
            shown = clips if setting.point.key in compared else clips[:1]
            rows.append(_rows(setting, shown))
            widest = max(widest, *map(len, shown))
    if not rows:
        return "<h2>Listen</h2><p>No audio was saved next to the results file.</p>"
    note = f"{_SIDE_BY_SIDE} {_NOTE}" if widest > 1 else _NOTE
    titles = ["model", "quality", "diversity", "prompt", *(f"sample {number + 1}" for number in range(widest))]
    header = "".join(f"<th>{title}</th>" for title in titles)
    return (
        f'<h2 id="listen">Listen</h2><p class=note>{note}</p>'
        f"<div class=scroll><table><thead><tr>{header}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _compared(data: ReportData) -> set[str]:
    """Keys of the points that the tables compare; empty if their series were not measured."""
    try:
        return {setting.point.key for setting in headline(data).values()}
    except NotMeasuredError:
        return set()


def _rows(setting: Setting, clips: Sequence[Sequence[Path]]) -> str:
    """One table row for each prompt; the cells of the model span all of its rows."""
    quality, diversity = setting.place
    point = setting.point
    label = f"{model_label(point)}, T = {point.temperature:g}" + (
        "" if point.guidance_scale == 1 else ", negative prompt" if point.negative else ", unconditional"
    )
    cells = (html.escape(label), f"{quality:.2f}", f"{diversity:.2f}")
    model = "".join(f"<td rowspan={len(clips)}>{text}</td>" for text in cells)
    prompts = [_prompt(prompt, samples) for prompt, samples in zip(setting.prompts, clips, strict=False)]
    return "".join(f"<tr>{cells}</tr>" for cells in (model + prompts[0], *prompts[1:]))


def _prompt(prompt: str, samples: Sequence[Path]) -> str:
    players = "".join(f"<td>{_player(sample)}</td>" for sample in samples)
    return f"<td class=prompt>{html.escape(prompt)}</td>{players}"


def _player(clip: Path) -> str:
    kind, sound = playable(clip)
    return f'<audio controls preload="none" src="data:{kind};base64,{base64.b64encode(sound).decode()}"></audio>'
