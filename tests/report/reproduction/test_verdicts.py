"""Verdicts on numbers with a rule, without a rule, and on missing numbers."""

from __future__ import annotations

import math

from qd.evaluation.results import NotMeasuredError
from qd.metrics.bootstrap import Interval
from qd.report.reproduction.verdicts import Verdict, above, overall, part

NUMBER, UNDEFINED = Interval(1.0, 0.5, 1.5), Interval(math.nan, math.nan, math.nan)


def test_a_rule_may_be_a_function():
    assert part("x", lambda: NUMBER, lambda: above(0.1)) == part("x", lambda: NUMBER, above(0.1))
    assert part("x", lambda: NUMBER, lambda: above(0.1)).verdict is Verdict.HOLDS


def test_a_number_without_a_rule_has_no_verdict():
    plain, undefined = part("x", lambda: NUMBER), part("x", lambda: UNDEFINED)
    assert (plain.verdict, plain.interval) == (None, NUMBER)
    assert (undefined.verdict, undefined.interval) == (None, None) and undefined.note
    judged = part("x", lambda: UNDEFINED, above(0.0))
    assert (judged.verdict, judged.rule) == (Verdict.OPEN, "> 0")
    assert overall([undefined, part("x", lambda: NUMBER, above())]) is Verdict.HOLDS


def test_a_missing_number_is_missing_with_or_without_a_rule():
    def missing() -> Interval:
        raise NotMeasuredError("beta5")

    for rule in (None, above()):
        result = part("x", missing, rule)
        assert (result.verdict, result.note) == (Verdict.MISSING, "not measured: beta5")
