"""What a number says of a claim: with a rule, without one, and where there is no number."""

from __future__ import annotations

import math

from qd.evaluation.results import NotMeasuredError
from qd.metrics.bootstrap import Interval
from qd.report.reproduction.verdicts import Verdict, above, overall, part

NUMBER, UNDEFINED = Interval(1.0, 0.5, 1.5), Interval(math.nan, math.nan, math.nan)


def test_a_rule_may_wait_for_the_number():
    assert part("x", lambda: NUMBER, lambda: above(0.1)) == part("x", lambda: NUMBER, above(0.1))
    assert part("x", lambda: NUMBER, lambda: above(0.1)).verdict is Verdict.HOLDS


def test_a_number_that_is_only_told_has_no_verdict_whatever_it_is():
    told, undefined = part("x", lambda: NUMBER), part("x", lambda: UNDEFINED)
    assert (told.verdict, told.interval) == (None, NUMBER)
    assert (undefined.verdict, undefined.interval) == (None, None) and undefined.note
    judged = part("x", lambda: UNDEFINED, above(0.0))
    assert (judged.verdict, judged.rule) == (Verdict.OPEN, "> 0")
    assert overall([undefined, part("x", lambda: NUMBER, above())]) is Verdict.HOLDS


def test_what_was_not_measured_is_missing_judged_or_not():
    def missing() -> Interval:
        raise NotMeasuredError("beta5")

    for rule in (None, above()):
        found = part("x", missing, rule)
        assert (found.verdict, found.note) == (Verdict.MISSING, "not measured: beta5")
