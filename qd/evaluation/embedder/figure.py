"""The figure of an embedder report: cosines of same and different recordings, and of altered clips."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from qd.evaluation.embedder.measurement import DIFFERENT, SAME, EmbedderMeasurement

CLIPS_A_BIN, MOST_BINS = 6, 40


def report_figure(measured: Mapping[str, EmbedderMeasurement], title: str) -> Figure:
    """Draws one column for each embedder.

    Above: the distributions of the cosines of same and of different recordings. Below: the mean cosine of a clip with
    its altered version, with 95 % intervals, next to the means of these two. Fill and line style differ, not only
    colour.

    Raises:
        ValueError: Nothing was measured.
    """
    if not measured:
        raise ValueError("report_figure got no measurements; measure one embedder or more")
    results = list(measured.values())
    rows = list(results[0].invariance)
    heights = [2.2, 0.6 + 0.27 * len(rows)]
    figure = Figure(figsize=(1.8 + 3.3 * len(measured), sum(heights) + 1.4), layout="constrained")
    axes = figure.subplots(2, len(measured), squeeze=False, height_ratios=heights, sharex="row", sharey="row")
    lowest = min(0.0, *(float(np.quantile(result.different, 0.002)) for result in results))
    for column, (name, result) in enumerate(measured.items()):
        _histograms(axes[0, column], name, result, lowest)
        _dots(axes[1, column], rows, result)
    axes[0, 0].set_ylabel("density", fontsize=8)
    axes[0, 0].legend(title="two clips of", fontsize=8, title_fontsize=8, loc="upper left", framealpha=0.9)
    axes[1, 0].set_yticks(range(len(rows)), rows)
    axes[1, 0].invert_yaxis()
    figure.legend(*axes[1, 0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    figure.suptitle(title, fontsize=9)
    return figure


def _histograms(axes: Axes, name: str, result: EmbedderMeasurement, lowest: float) -> None:
    count = int(np.clip(len(result.same) // CLIPS_A_BIN, 10, MOST_BINS))
    bins = np.linspace(lowest, 1.0, count + 1)
    shades = {"density": True, "histtype": "stepfilled", "color": "#C8C8C8", "label": "different recordings"}
    axes.hist(result.different.ravel().clip(lowest, 1.0), bins, **shades)
    line = {"density": True, "histtype": "step", "color": "black", "linewidth": 1.4, "label": "one recording"}
    axes.hist(result.same.clip(lowest, 1.0), bins, **line)
    retrieval = result.retrieval
    axes.set_title(f"{name}: AUC {retrieval['auc']:.3f}, recall@1 {retrieval['recall@1']:.2f}", fontsize=9)
    axes.set_xlabel("cosine of two clips", fontsize=8)
    axes.set_xlim(lowest, 1.0)
    axes.tick_params(labelsize=8)


def _dots(axes: Axes, rows: list[str], result: EmbedderMeasurement) -> None:
    values = [result.invariance[row] for row in rows]
    bars = [[v.mean - v.lo for v in values], [v.hi - v.mean for v in values]]
    axes.errorbar(
        [v.mean for v in values],
        range(len(rows)),
        xerr=np.maximum(bars, 0.0),
        fmt="o",
        color="black",
        markersize=4.5,
        capsize=2.5,
        elinewidth=1.1,
        label="its altered version",
    )
    for name, line in ((SAME, "--"), (DIFFERENT, ":")):
        axes.axvline(result.references()[name].mean, color="black", linestyle=line, linewidth=1.1, label=name, zorder=1)
    axes.set_xlabel("mean cosine of a clip with …", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(color="#E4E4E4")
    axes.set_axisbelow(True)
