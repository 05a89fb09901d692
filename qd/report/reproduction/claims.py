"""The claims of the paper and the measurements that support or contradict them, as Markdown tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from qd.metrics.bootstrap import Interval
from qd.metrics.formatting import markdown_table
from qd.report.reproduction import front_claims as fronts
from qd.report.reproduction import training_claims as training
from qd.report.reproduction.measured import Measured
from qd.report.reproduction.verdicts import Part, Verdict, overall

CLAIMS: tuple[Callable[[Measured], list[Part]], ...] = (
    training.guidance_is_distilled,
    training.kl_rises_with_beta,
    training.distillation_loses_diversity,
    training.diversity_rises_with_beta,
    training.beta_costs_adherence,
    fronts.line_bends_upwards,
    fronts.line_beats_betas,
    fronts.line_beats_sampling,
    fronts.base_line_beats_guidance,
    fronts.soup_is_as_good,
    fronts.negative_beats_unconditional,
    training.n_is_a_factor,
    training.vendi_ranks_alike,
    training.entropy_does_not_follow,
    fronts.distances_as_in_the_tables,
    training.gain_is_not_gamed,
)
"""In numerical order; the docstring of each function is the claim."""

RULES = """Intervals are 95 % bootstrap intervals over the prompts. All models of a statistic share the same resamples.
(Exceptions: the KL is resampled over logged steps; for FAD the range over the sampling seeds is given.) In claims 1, 3
to 5, 12 to 14 and 16, and for the adherence of claim 15, the value of a model is its mean over all sampling seeds. If
it was trained with several seeds, the training runs are resampled too; two training seeds show little of the spread
between runs, but more than one seed does. Lines and fronts (claims 6 to 11) use the first seeds only.

A statement **holds** if the whole interval satisfies its rule, **fails** if the whole interval violates it, and is
**open** otherwise. "Matches", "near" and "as good" allow a tenth of the change that guidance (γ = 3,
negative prompt) makes in that metric; claim 15 allows a fifth of the standard deviation over prompts. "Beats" means
more quality at equal diversity, averaged over the points of the other strategy's front that are not more diverse than
the diverse end of the line; points beyond that end are not compared. An interpolation is represented by cubics in λ and
not by its best points, because chance favours the best of many points. If a plan has other values of β than the paper,
its last one replaces β = 15. A claim holds if all its statements hold, and fails if one of them fails.
Numbers without a rule are given for information."""


class Row(NamedTuple):
    """A claim and its verdict in one attempt."""

    claim: str
    verdict: Verdict
    parts: list[Part]


def judge(measured: Measured) -> list[Row]:
    """Judges all claims by one set of results."""
    judged = [(claim, claim(measured)) for claim in CLAIMS]
    return [Row(claim.__doc__ or "", overall(parts), parts) for claim, parts in judged]


def claims_table(attempts: Mapping[str, Sequence[Row]]) -> str:
    """Markdown: a row for each claim with a verdict for each attempt; then the rules and the numbers.

    Args:
        attempts: Rows of :func:`judge` by the name of the attempt.
    """
    verdicts = [
        [rows[0].claim, *(f"**{row.verdict.value}**" for row in rows)] for rows in zip(*attempts.values(), strict=True)
    ]
    details = [_details(name, rows) for name, rows in attempts.items()]
    return "\n".join([markdown_table(["claim", *attempts], verdicts), "", RULES, "", *details])


def _details(name: str, rows: Sequence[Row]) -> str:
    lines = [[row.claim.split(".")[0], *_part(part)] for row in rows for part in row.parts]
    table = markdown_table(["claim", "statement", "measured", "rule", "verdict"], lines)
    return f"### The numbers: {name}\n\n{table}\n"


def _part(part: Part) -> list[str]:
    number = "" if part.interval is None else format_interval(part.interval)
    measured = "; ".join(text for text in (number, part.note) if text)
    return [part.text, measured, part.rule, part.verdict.value if part.verdict else ""]


def format_interval(interval: Interval) -> str:
    """``+0.123 [+0.100, +0.150]``, or only the number if it has no spread."""
    if interval.lo == interval.mean == interval.hi:
        return f"{interval.mean:+.3f}"
    return f"{interval.mean:+.3f} [{interval.lo:+.3f}, {interval.hi:+.3f}]"
