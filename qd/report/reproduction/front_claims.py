"""The paper's claims about Pareto fronts (merging, guidance and temperature) and about FAD."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from qd.evaluation.points import Point
from qd.evaluation.results import NotMeasuredError
from qd.metrics.bootstrap import Interval
from qd.metrics.pareto import smooth_line
from qd.report.reproduction.measured import BASE, Measured
from qd.report.reproduction.statistics import bootstrap, front_of, gain_at_equal_diversity
from qd.report.reproduction.training_claims import CFG, MARGIN, margin, values_of
from qd.report.reproduction.verdicts import Part, Rule, Verdict, above, below, part, within

SPREAD_SHARE = 0.2
"""Margin of claim 15, as a share of the standard deviation over prompts. Table 4 counts means that differ by a tenth of
the standard deviation as equal."""


def line_bends_upwards(m: Measured) -> list[Part]:
    """6. Along the LERP path quality lies above the diagonal, diversity near it."""

    def excess(metric: str) -> Interval:
        line = m.line(*m.ends)
        lams = np.array([lam for lam, _ in line])
        rows = m.stack([point for _, point in line], metric)

        def above_the_diagonal(means: NDArray) -> float:
            diagonal = (1 - lams) * means[0] + lams * means[-1]
            return float((means - diagonal)[1:-1].mean())

        return bootstrap(above_the_diagonal, rows)

    def near() -> Rule:
        first, *_, last = m.stack([point for _, point in m.line(*m.ends)], "diversity").mean(1)
        return within(MARGIN * abs(last - first))

    text = f"{{}} of {_short(m.ends)} above the straight line between its ends, mean over 0 < λ < 1"
    return [
        part(text.format("quality"), lambda: excess("quality"), above()),
        part(text.format("diversity"), lambda: excess("diversity"), near),
    ]


def line_beats_betas(m: Measured) -> list[Part]:
    """7. LERP(0,15) beats intermediate β."""
    between = m.betas[1:-1]
    return [_beats(m, m.ends, lambda: [m.model(role) for role in between], " and ".join(between) or "other β")]


def line_beats_sampling(m: Measured) -> list[Part]:
    """8. It beats the γ sweep and the temperature sweep on base and distilled."""
    return [
        _beats(m, m.ends, lambda: m.scales(BASE), "γ on base"),
        _beats(m, m.ends, lambda: m.scales(m.betas[0]), f"γ on {m.betas[0]}"),
        _beats(m, m.ends, lambda: m.temperatures(BASE), "T on base"),
        _beats(m, m.ends, lambda: m.temperatures(m.betas[0]), f"T on {m.betas[0]}"),
    ]


def base_line_beats_guidance(m: Measured) -> list[Part]:
    """9. LERP(0, base) beats CFG on base."""
    return [_beats(m, (m.betas[0], BASE), lambda: m.scales(BASE), "γ on base")]


def soup_is_as_good(m: Measured) -> list[Part]:
    """10. The uniform soup of four is at least as good."""

    def shortfall() -> Interval:
        gain = _gain_of_line(m, m.ends, [m.soup(*m.betas)])
        return Interval(-gain.mean, -gain.hi, -gain.lo)

    text = f"quality at equal diversity: uniform soup − {_short(m.ends)}"
    return [part(text, shortfall, lambda: above(-margin(m, "quality")))]


def negative_beats_unconditional(m: Measured) -> list[Part]:
    """11. Negative guidance beats unconditional (preference up, adherence down); diversity falls with γ."""

    def at_the_teacher(metric: str) -> Interval:
        pair = [m.guided(BASE, unconditional=unconditional) for unconditional in (False, True)]
        return bootstrap(lambda means: means[0] - means[1], m.stack(pair, metric))

    def front() -> Interval:
        return _gain(m, m.scales(BASE), m.scales(BASE, unconditional=True)[1:])

    def slope(unconditional: bool) -> Interval:
        points = m.scales(BASE, unconditional)
        scales = np.array([point.guidance_scale for point in points])
        return bootstrap(lambda means: float(np.polyfit(scales, means, 1)[0]), m.stack(points, "diversity"))

    text = "{} at γ = 3: negative prompt − unconditional"
    return [
        part("quality at equal diversity: negative prompt − unconditional", front, above()),
        part(text.format("preference"), lambda: at_the_teacher("preference"), above()),
        part(text.format("adherence"), lambda: at_the_teacher("adherence"), below()),
        part("slope of diversity in γ, negative prompt", lambda: slope(False), below()),
        part("slope of diversity in γ, unconditional", lambda: slope(True), below()),
    ]


def distances_as_in_the_tables(m: Measured) -> list[Part]:
    """15. FAD and CLAP patterns of Tables 4–5: all models adhere alike; FAD: base < CFG = β=0 < β=15."""
    first, last = m.ends
    lerp = [point for lam, point in _middle(m)]

    def alike(name: str) -> Part:
        def gap() -> Interval:
            other = m.values(lerp[0])["adherence"] if name == "LERP" and lerp else None
            if name == "LERP" and other is None:
                raise NotMeasuredError(f"{_short(m.ends)} at λ = 0.5")
            mine = values_of(m, name, "adherence") if other is None else other
            return bootstrap(lambda v: v[0] - v[1], [mine, values_of(m, CFG, "adherence")])

        return part(
            f"adherence (instead of CLAP): {name} − CFG",
            gap,
            lambda: within(SPREAD_SHARE * values_of(m, CFG, "adherence").std()),
        )

    return [
        *(alike(name) for name in (BASE, first, "LERP", last)),
        _distance(m, CFG, BASE, positive=True),
        _distance(m, first, CFG, positive=None),
        _distance(m, last, first, positive=True),
    ]


def _beats(m: Measured, ends: tuple[str, str], others: Callable[[], Sequence[Point]], what: str) -> Part:
    """The gain in quality of a line over the front of other models, at equal diversity."""

    def gain() -> Interval:
        return _gain_of_line(m, ends, others())

    return part(f"quality at equal diversity: {_short(ends)} − {what}", gain, above())


def _short(ends: tuple[str, str]) -> str:
    """Short name of a line: ``LERP(0, 15)``."""
    return f"LERP({', '.join(name.removeprefix('beta') for name in ends)})"


def _gain_of_line(m: Measured, ends: tuple[str, str], others: Sequence[Point]) -> Interval:
    """:func:`_gain` of an interpolation, whose many similar models are replaced by a smooth line."""
    line = m.line(*ends)
    lams = np.array([lam for lam, _ in line])
    return _gain(m, [point for _, point in line], others, lambda models: smooth_line(lams, models))


def _gain(
    m: Measured, line: Sequence[Point], others: Sequence[Point], curve: Callable[[NDArray], NDArray] = np.asarray
) -> Interval:
    """The gain in quality of a line over the non-dominated other points; points that are also on the line are ignored.

    Args:
        m: The measured points.
        line: Points of the line.
        others: Points of the other strategy.
        curve: Turns the quality and diversity of the line's points, ``(points, 2)``, into the curve to compare.
    """
    keys = {point.key for point in line}
    others = [point for point in others if point.key not in keys]
    if not others:
        raise NotMeasuredError("models that are not on the line")
    quality, diversity = (m.stack(others, metric) for metric in ("quality", "diversity"))
    front = front_of(quality.mean(1), diversity.mean(1))
    rows = [*(m.stack(line, metric) for metric in ("quality", "diversity")), quality[front], diversity[front]]
    ends = np.cumsum([len(block) for block in rows])[:-1]

    def statistic(means: NDArray) -> float:
        a, b, c, d = np.split(means, ends)
        return gain_at_equal_diversity(curve(np.column_stack([a, b])), np.column_stack([c, d]))

    return bootstrap(statistic, np.concatenate(rows))


def _middle(m: Measured) -> list[tuple[float, Point]]:
    try:
        return [(lam, point) for lam, point in m.line(*m.ends) if abs(lam - 0.5) < 1e-6]
    except NotMeasuredError:
        return []


def _distance(m: Measured, one: str, other: str, positive: bool | None) -> Part:
    """Compares Fréchet distances by the sign over the sampling seeds, because they have no value for each prompt."""
    seeds = sorted({point.seed for point in m.points})
    text = f"FAD: {one} − {other}, mean and range over the sampling seeds"
    pairs = [(_fad(m, one, seed), _fad(m, other, seed)) for seed in seeds]
    gaps = [a - b for a, b in pairs if a is not None and b is not None]
    if not gaps:
        return Part(text, "", None, Verdict.MISSING, "not measured")
    interval = Interval(float(np.mean(gaps)), min(gaps), max(gaps))
    if positive is None:
        return Part(text, "", interval, None)
    if len(gaps) < 2:
        return Part(text, "> 0 for every seed", interval, Verdict.OPEN, "one seed gives no spread")
    verdict = Verdict.HOLDS if min(gaps) > 0 else Verdict.FAILS if max(gaps) <= 0 else Verdict.OPEN
    return Part(text, "> 0 for every seed", interval, verdict)


def _fad(m: Measured, name: str, seed: int) -> float | None:
    try:
        return (m.guided(BASE, seed=seed) if name == CFG else m.model(name, seed)).fad
    except NotMeasuredError:
        return None
