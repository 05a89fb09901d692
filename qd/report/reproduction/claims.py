"""The claims of the paper, each beside what was measured: a table that is filled by code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from qd.metrics.bootstrap import Interval
from qd.metrics.formatting import markdown_table
from qd.report.reproduction import claims_of_fronts as fronts
from qd.report.reproduction import claims_of_training as training
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
"""In the order of their numbers; the docstring of each is the claim."""

RULES = """Intervals are 95 % bootstrap intervals over the prompts, all models of a statistic on the same resamples (of
the KL: over logged steps, of FAD: the range over the seeds of sampling). In claims 1, 3 to 5, 12 to 14 and 16, and for
the adherence of claim 15, a model is the mean of all seeds of sampling, and where it was trained with several seeds
these are resampled too; two seeds tell little of such a spread, but more than one does. Lines and fronts (6 to 11) are
of the first seeds alone. A statement **holds** if the whole interval is
where its rule asks, **does not** if the whole interval is elsewhere, and is **not resolved** otherwise. "Matches",
"near" and "as good" allow a tenth of what guidance (γ = 3, negative prompt) changes in that metric; in claim 15, a
fifth of the standard deviation over prompts. "Beats" is more quality at equal diversity, over those points of the other
strategy's front that are no more diverse than the line's diverse end; what lies beyond it is not compared. An
interpolation stands there as cubics in λ, not as its best points, which chance would favour. Of other betas than the
paper's the last stands for β = 15. A claim holds if all its statements do, and does not if one does not. Numbers
without a rule are told beside."""


class Row(NamedTuple):
    """A claim, and what became of it in one attempt."""

    claim: str
    verdict: Verdict
    parts: list[Part]


def judge(measured: Measured) -> list[Row]:
    """All claims, held against one set of results."""
    found = [(claim, claim(measured)) for claim in CLAIMS]
    return [Row(claim.__doc__ or "", overall(parts), parts) for claim, parts in found]


def claims_table(attempts: Mapping[str, Sequence[Row]]) -> str:
    """Markdown: a row for each claim, a verdict for each attempt; then the numbers behind each.

    Args:
        attempts: rows of :func:`judge` by the name of the attempt, the first configuration first.
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
    told = "; ".join(text for text in (number, part.note) if text)
    return [part.text, told, part.rule, part.verdict.value if part.verdict else ""]


def format_interval(interval: Interval) -> str:
    """``+0.123 [+0.100, +0.150]``, or the number alone where it has no spread."""
    if interval.lo == interval.mean == interval.hi:
        return f"{interval.mean:+.3f}"
    return f"{interval.mean:+.3f} [{interval.lo:+.3f}, {interval.hi:+.3f}]"
