"""What a number says of a claim: the rules, in words and in code."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from qd.evaluation.results import NotMeasuredError
from qd.metrics.bootstrap import Interval


class Verdict(str, Enum):
    HOLDS = "holds"
    FAILS = "does not"
    OPEN = "not resolved"
    MISSING = "not measured"


class Rule(NamedTuple):
    """A rule in words, and what it makes of an interval."""

    text: str
    judge: Callable[[Interval], Verdict]


@dataclass(frozen=True)
class Part:
    """One statement of a claim.

    Attributes:
        text: what is measured, with its unit where it has one.
        rule: when it holds, in words; "" of a number that is only told.
        interval: the number; None if it was not measured.
        verdict: None of a number that is only told.
        note: what is missing, or what else there is to say.
    """

    text: str
    rule: str
    interval: Interval | None
    verdict: Verdict | None
    note: str = ""


def above(bound: float = 0.0) -> Rule:
    """Holds if the whole interval lies above; does not if it lies below."""
    return Rule(f"> {bound:.3g}", lambda it: _side(it.lo > bound, it.hi <= bound))


def below(bound: float = 0.0) -> Rule:
    """Holds if the whole interval lies below; does not if it lies above."""
    return Rule(f"< {bound:.3g}", lambda it: _side(it.hi < bound, it.lo >= bound))


def within(margin: float) -> Rule:
    """Holds if the whole interval lies inside ± margin; does not if it lies outside."""
    return Rule(
        f"within ± {margin:.3g}",
        lambda it: _side(-margin < it.lo and it.hi < margin, it.hi <= -margin or it.lo >= margin),
    )


def part(text: str, measure: Callable[[], Interval], rule: Callable[[], Rule] | Rule | None = None) -> Part:
    """A statement, measured and judged; or what it lacks.

    Args:
        text: what is measured.
        measure: gives the number, or raises ``NotMeasuredError``.
        rule: when it holds; a function where the rule itself needs measurements. None: the number is only told.
    """
    try:
        interval, judged = measure(), rule() if callable(rule) else rule
    except NotMeasuredError as missing:
        return Part(text, "", None, Verdict.MISSING, f"not measured: {missing}")
    if not all(map(math.isfinite, interval)):
        verdict = Verdict.OPEN if judged else None
        return Part(text, judged.text if judged else "", None, verdict, "outside the range of the line")
    return Part(text, judged.text if judged else "", interval, judged.judge(interval) if judged else None)


def overall(parts: Sequence[Part]) -> Verdict:
    """Of a claim: does not hold if a part does not; not measured if one is missing; holds only if all do."""
    verdicts = {part.verdict for part in parts if part.verdict is not None}
    for verdict in (Verdict.FAILS, Verdict.MISSING, Verdict.OPEN):
        if verdict in verdicts:
            return verdict
    return Verdict.HOLDS if verdicts else Verdict.MISSING


def _side(holds: bool, fails: bool) -> Verdict:
    return Verdict.HOLDS if holds else Verdict.FAILS if fails else Verdict.OPEN
