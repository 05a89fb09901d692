"""The tables of an embedder report, in Markdown."""

from __future__ import annotations

from collections.abc import Mapping

from qd.evaluation.embedder.measurement import EmbedderMeasurement, Spread
from qd.metrics.formatting import markdown_interval, markdown_table

Measured = Mapping[str, EmbedderMeasurement]

_RETRIEVAL = {"recall@1": "recall@1", "recall@5": "recall@5", "auc": "ROC-AUC same/different"}


def retrieval_table(measured: Measured) -> str:
    """Retrieval metrics, one row for each embedder."""
    rows = [[name, *(f"{result.retrieval[metric]:.3f}" for metric in _RETRIEVAL)] for name, result in measured.items()]
    return markdown_table(["embedder", *_RETRIEVAL.values()], rows)


def invariance_table(measured: Measured) -> str:
    """Mean cosines with intervals, one column for each embedder; the two references last."""
    first = _first(measured)
    rows = [
        [
            alteration,
            str(first.altered_clips[alteration]),
            *(markdown_interval(m.invariance[alteration]) for m in measured.values()),
        ]
        for alteration in first.invariance
    ]
    references = [m.references() for m in measured.values()]
    rows += [
        [f"*{name}*", str(len(first.same)), *(markdown_interval(r[name]) for r in references)] for name in references[0]
    ]
    return markdown_table(["a clip and …", "clips", *measured], rows)


def relative_table(measured: Measured) -> str:
    """The same means on the scale where 0 is a different recording and 1 the clip itself."""
    rows = {
        alteration: [m.invariance[alteration] for m in measured.values()] for alteration in _first(measured).invariance
    }
    rows |= {f"*{name}*": [m.references()[name] for m in measured.values()] for name in _first(measured).references()}
    scaled = [
        [name, *(f"{m.relative(value.mean):.2f}" for m, value in zip(measured.values(), values, strict=True))]
        for name, values in rows.items()
    ]
    return markdown_table(["a clip and …", *measured], scaled[:-1])  # the last is 0 by definition


def recall_table(measured: Measured) -> str:
    """recall@1 of altered clips among the second clips of all recordings; the unchanged clips first."""
    unchanged = ["*the unchanged clip*", *(f"{m.retrieval['recall@1']:.3f}" for m in measured.values())]
    rows = [
        [name, *(f"{m.altered_recall[name]:.3f}" for m in measured.values())]
        for name in _first(measured).altered_recall
    ]
    return markdown_table(["query", *measured], [unchanged, *rows])


def calibration_table(measured: Measured) -> str:
    """1 − cosine of two clips, by what they have in common."""
    first = _first(measured).calibration
    rows = [
        [kind, str(spread.pairs), *(_spread(m.calibration[kind]) for m in measured.values())]
        for kind, spread in first.items()
    ]
    return markdown_table(["two clips of …", "pairs", *measured], rows)


def _first(measured: Measured) -> EmbedderMeasurement:
    return next(iter(measured.values()))


def _spread(spread: Spread) -> str:
    return f"{markdown_interval(spread.mean)}; {spread.low:.2f} … {spread.high:.2f}"
