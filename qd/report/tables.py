"""The paper's tables, and a comparison of the Pareto fronts of all strategies."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from qd.evaluation.figures import AXES
from qd.evaluation.points import Point
from qd.evaluation.results import NotMeasuredError
from qd.metrics.formatting import markdown_interval, markdown_table
from qd.metrics.pareto import common_reference, hypervolume
from qd.metrics.strategies import Strategy, dominance
from qd.report.data import ReportData, Setting
from qd.report.facets import SPREADS, facet_models, good_models
from qd.report.headline import HEADLINE, headline
from qd.report.labels import series_label

FRONTS = ("guidance-", "temperature-", "lerp-", "betas")


class Table(NamedTuple):
    """Rows of text under a header."""

    header: list[str]
    rows: list[list[str]]

    def markdown(self) -> str:
        return markdown_table(self.header, self.rows)


class Tabulation(NamedTuple):
    """A table of the report.

    Attributes:
        title: Description of the content.
        make: Makes the table; raises :class:`NotMeasuredError` if points are missing.
        series: Prefixes of the names of the series that it shows.
    """

    title: str
    make: Callable[[ReportData], Table]
    series: tuple[str, ...] = HEADLINE


def diversity_table(data: ReportData) -> Table:
    """Table 1: Vendi score and mean dissimilarity, the most diverse model first."""
    models = sorted(headline(data).items(), key=lambda item: -item[1].metrics["diversity"].mean)
    columns = ("vendi", "diversity", "diversity_heldout")
    rows = [[label, *(interval(setting, name, 2) for name in columns)] for label, setting in models]
    return Table(["Model", "Vendi score", "1 − mean", "1 − mean, held-out embedder"], rows)


def adherence_table(data: ReportData) -> Table:
    """Table 4: mean and standard deviation of text adherence over the prompts (the paper uses the CLAP score)."""
    rows = []
    for label, setting in headline(data).items():
        values = setting.per_prompt["adherence"]
        rows.append([label, f"{values.mean():.3f} ± {values.std(ddof=1):.3f}", interval(setting, "adherence")])
    return Table(["Model", "Adherence, mean ± std", "mean [95 % interval]"], rows)


def fad_table(data: ReportData) -> Table:
    """Table 5: Fréchet audio distance, FAD∞ without the bias of the number of clips, and KAD, for each reference."""
    measured = {
        label: [point for point in setting.points if point.fad is not None] for label, setting in headline(data).items()
    }
    references = sorted({point.fad_reference for points in measured.values() for point in points})
    if not references:
        raise NotMeasuredError("needs fad: true in series betas or guidance-base")
    rows = [
        [label, *(text for reference in references for text in _distances(points, reference))]
        for label, points in measured.items()
        if points
    ]
    return Table(["Model", *(title for name in references for title in (f"FAD to {name}", "FAD∞", "KAD"))], rows)


def _distances(points: list[Point], reference: str) -> tuple[str, ...]:
    """FAD, FAD∞ and KAD to one reference, means over the seeds; "—" if not measured."""
    measured = [point for point in points if point.fad_reference == reference]
    columns = [[getattr(point, name) for point in measured] for name in ("fad", "fad_infinite", "kad")]
    return tuple("—" if not values or None in values else f"{np.mean(values):.3f}" for values in columns)


def good_clips_table(data: ReportData) -> Table:
    """Shares of clean and effective clips, and the diversity among them."""
    embedders = ("", "_heldout")
    rows = []
    for label, setting in good_models(data).items():
        cells = [interval(setting, f"diversity{ending}", 2) for ending in embedders]
        for kind in ("clean", "effective"):
            share, left_out = (setting.metrics[f"{kind}_{name}"].mean for name in ("share", "left_out"))
            cells += [f"{100 * share:.0f} %", f"{left_out * len(setting.prompts):g}"]
            cells += [interval(setting, f"diversity_{kind}{ending}", 2) for ending in embedders]
        rows.append([label, *cells])
    diversities = ("diversity", "diversity, held-out")
    columns = [f"{kind}: {name}" for kind in ("clean", "effective")
               for name in ("clips", "prompts left out", *diversities)]  # fmt: skip
    return Table(["Model", *diversities, *columns], rows)


def facet_table(data: ReportData) -> Table:
    """Spread of each facet with its interval, and the means over all clips."""
    means = {"tempo": "beats a minute", "brightness": "Hz", "onset_rate": "onsets/s", "loudness": "dB"}
    rows = [
        [
            label,
            *(interval(setting, name, 2) for name in SPREADS),
            *(f"{setting.metrics[name].mean:.4g}" for name in means),
        ]
        for label, setting in facet_models(data).items()
    ]
    titles = [f"mean {name.replace('_', ' ')}, {unit}" for name, unit in means.items()]
    return Table(["Model", *(AXES[name] for name in SPREADS), *titles], rows)


def front_table(data: ReportData) -> Table:
    """Hypervolume of the front of interpolated weights, compared with that of every other strategy."""
    lerp = data.line("slider")
    rows = []
    for name, settings in data.starting(*FRONTS).items():
        reference = common_reference(*([setting.place for setting in one] for one in (lerp, settings)))
        compared = dominance(strategy(lerp), strategy(settings), reference)
        areas = [hypervolume([setting.place for setting in one], reference) for one in (lerp, settings)]
        label = series_label(name, settings[0].point)
        difference = f"{compared.difference.mean:+.3f} [{compared.difference.lo:+.3f}, {compared.difference.hi:+.3f}]"
        rows.append(
            [label, *(f"{area:.3f}" for area in areas), difference, f"{compared.probability:.3f}",
             f"{100 * compared.coverage.mean:.0f} %", f"({reference[0]:.2f}, {reference[1]:.2f})"]
        )  # fmt: skip
    if not rows:
        raise NotMeasuredError("needs another strategy besides series slider")
    header = ["Strategy", "hypervolume of LERP", "hypervolume of the strategy", "difference [95 % interval]",
              "P(LERP is larger)", "points dominated by LERP", "reference (quality, diversity)"]  # fmt: skip
    return Table(header, rows)


TABLES: Mapping[str, Tabulation] = {
    "table-1": Tabulation(
        "Diversity of samples of the same prompt: Vendi score, and mean dissimilarity by two embedders.",
        diversity_table,
    ),
    "table-4": Tabulation(
        "Text adherence of each model: mean and standard deviation over the prompts.", adherence_table
    ),
    "table-5": Tabulation(
        "Fréchet audio distance (FAD) to reference recordings; FAD∞ is extrapolated to infinitely many clips. Kernel "
        "audio distance (KAD).",
        fad_table,
    ),
    "good-clips": Tabulation(
        "Diversity by both embedders of all clips, of clean clips (by their preference), and of effective clips (by "
        "their quality). Prompts with fewer than two such clips are left out.",
        good_clips_table,
    ),
    "facet-values": Tabulation(
        "Musical facets: how much the samples of a prompt differ, and means over all clips.", facet_table
    ),
    "fronts": Tabulation(
        "Pareto front of interpolated weights (LERP), compared with the front of every other strategy.", front_table
    ),
}


def strategy(settings: list[Setting]) -> Strategy:
    """Quality and diversity of each setting for each prompt."""
    return Strategy(*([setting.per_prompt[name] for setting in settings] for name in ("quality", "diversity")))


def interval(setting: Setting, name: str, digits: int = 3) -> str:
    """``0.32 [0.29, 0.35]``, with the spread over the seeds if there are several; "—" if undefined."""
    if math.isnan(setting.metrics[name].mean):
        return "—"
    spread = f" (spread over seeds {setting.spread[name]:.{digits}f})" if len(setting.seeds) > 1 else ""
    return markdown_interval(setting.metrics[name], digits) + spread
