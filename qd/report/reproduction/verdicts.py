"""Verdicts on the paper's claims: the rules, in words and in code."""

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
    FAILS = "fails"
    OPEN = "open"
    MISSING = "not measured"


class Rule(NamedTuple):
    """A rule in words, and the verdict that it gives for an interval."""

    text: str
    judge: Callable[[Interval], Verdict]


@dataclass(frozen=True)
class Part:
    """One statement of a claim.

    Attributes:
        text: The measured quantity, with its unit if it has one.
        rule: Condition under which the statement holds, in words; "" for a number without a rule.
        interval: The number; None if it was not measured.
        verdict: The verdict; None for a number without a rule.
        note: Missing points, or another remark.
    """

    text: str
    rule: str
    interval: Interval | None
    verdict: Verdict | None
    note: str = ""


def above(bound: float = 0.0) -> Rule:
    """Holds if the whole interval is above the bound; fails if it is below."""
    return Rule(f"> {bound:.3g}", lambda it: _side(it.lo > bound, it.hi <= bound))


def below(bound: float = 0.0) -> Rule:
    """Holds if the whole interval is below the bound; fails if it is above."""
    return Rule(f"< {bound:.3g}", lambda it: _side(it.hi < bound, it.lo >= bound))


def within(margin: float) -> Rule:
    """Holds if the whole interval is inside ± margin; fails if it is outside."""
    return Rule(
        f"within ± {margin:.3g}",
        lambda it: _side(-margin < it.lo and it.hi < margin, it.hi <= -margin or it.lo >= margin),
    )


def part(text: str, measure: Callable[[], Interval], rule: Callable[[], Rule] | Rule | None = None) -> Part:
    """Measures and judges a statement; if points are missing, the note names them.

    Args:
        text: The measured quantity.
        measure: Returns the number, or raises ``NotMeasuredError``.
        rule: Condition for the statement; a function if the rule itself needs measurements. None: no verdict.
    """
    try:
        interval, applied = measure(), rule() if callable(rule) else rule
    except NotMeasuredError as missing:
        return Part(text, "", None, Verdict.MISSING, f"not measured: {missing}")
    if not all(map(math.isfinite, interval)):
        verdict = Verdict.OPEN if applied else None
        return Part(text, applied.text if applied else "", None, verdict, "outside the range of the line")
    return Part(text, applied.text if applied else "", interval, applied.judge(interval) if applied else None)


def overall(parts: Sequence[Part]) -> Verdict:
    """Verdict on a claim: fails if one part fails; else not measured if one is missing; holds if all do."""
    verdicts = {part.verdict for part in parts if part.verdict is not None}
    for verdict in (Verdict.FAILS, Verdict.MISSING, Verdict.OPEN):
        if verdict in verdicts:
            return verdict
    return Verdict.HOLDS if verdicts else Verdict.MISSING


def _side(holds: bool, fails: bool) -> Verdict:
    return Verdict.HOLDS if holds else Verdict.FAILS if fails else Verdict.OPEN
