"""The paper's claims about its finetuned models and about measures of diversity: a function for each claim.

For "matches", "near" and "as good" the margin is a tenth of the change that guidance makes in that metric: the
difference between the base model with guidance (γ = 3, negative prompt) and without.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from qd.evaluation.results import NotMeasuredError
from qd.metrics.bootstrap import Interval
from qd.report.reproduction.measured import BASE, Measured
from qd.report.reproduction.statistics import bootstrap, rank_agreement
from qd.report.reproduction.verdicts import Part, Rule, above, below, part

MARGIN = 0.1
CFG = "CFG"
"""The base model with the teacher's guidance."""

LAST_SHARE = 0.25
"""Share of the logged steps, at the end of a run, that counts as its final state."""


def values_of(measured: Measured, name: str, metric: str) -> NDArray[np.float64]:
    """Values ``(training runs, prompts)`` of a model without guidance or of ``CFG``, means over the sampling seeds."""
    if name == CFG:
        return measured.pooled(lambda seed: measured.guided(BASE, seed=seed), metric)[None]
    rows = [
        measured.pooled(lambda seed, one=run: measured.model(one, seed), metric) for run in measured.training_runs(name)
    ]
    return np.stack(rows)


def difference(measured: Measured, metric: str, one: str, other: str) -> Interval:
    """The difference one − other, paired by prompt."""
    return bootstrap(lambda means: means[0] - means[1], [values_of(measured, name, metric) for name in (one, other)])


def margin(measured: Measured, metric: str) -> float:
    """A tenth of the change that guidance makes in the metric."""
    return MARGIN * abs(values_of(measured, CFG, metric).mean() - values_of(measured, BASE, metric).mean())


def _compare(
    measured: Measured, metric: str, one: str, other: str, rule: Callable[..., Rule] | None = None, share: float = 0.0
) -> Part:
    """The statement about one − other; the rule's bound is ``share`` times the margin."""
    bound = partial(_bound, measured, metric, rule, share) if rule else None
    return part(f"{metric}: {one} − {other}", lambda: difference(measured, metric, one, other), bound)


def _bound(measured: Measured, metric: str, rule: Callable[..., Rule], share: float) -> Rule:
    return rule(share * margin(measured, metric)) if share else rule()


def guidance_is_distilled(m: Measured) -> list[Part]:
    """1. β=0 matches CFG γ=3 in quality at half the sampling cost."""

    def cost() -> Interval:
        ratio = m.sampling_seconds(m.model(m.betas[0])) / m.sampling_seconds(m.guided(BASE))
        return Interval(ratio, ratio, ratio)

    text = f"sampling time including decoding: {m.betas[0]} / CFG (closer to 0.5 than to 1)"
    return [
        _compare(m, "quality", m.betas[0], CFG, above, -1),
        part(text, cost, below(0.75)),
    ]


def kl_rises_with_beta(m: Measured) -> list[Part]:
    """2. KL falls most at β=0, and rises with β."""

    def last(one: str, other: str) -> Interval:
        a, b = m.logged(one, "train/kl_per_token"), m.logged(other, "train/kl_per_token")
        steps = sorted(a.keys() & b.keys())
        steps = steps[-max(2, round(LAST_SHARE * len(steps))) :]
        if len(steps) < 2:
            raise NotMeasuredError(f"steps that both {one} and {other} logged")
        return bootstrap(lambda d: d[0] - d[1], np.array([[run[step] for step in steps] for run in (a, b)]))

    pairs = zip(m.betas[1:], m.betas, strict=False)
    text = "KL per token (nats), last quarter of the logged steps, paired by step: {} − {}"
    return [part(text.format(one, other), partial(last, one, other), above()) for one, other in pairs]


def distillation_loses_diversity(m: Measured) -> list[Part]:
    """3. Distillation alone loses diversity, down to CFG's."""
    distilled = m.betas[0]
    return [_compare(m, "diversity", distilled, BASE, below), _compare(m, "diversity", distilled, CFG, below, 1)]


def diversity_rises_with_beta(m: Measured) -> list[Part]:
    """4. Diversity rises with β; β=15 near or above base."""
    first, last = m.ends
    steps = [_compare(m, "diversity", one, other, above) for one, other in zip(m.betas[1:], m.betas, strict=False)]
    whole = [] if len(steps) == 1 else [_compare(m, "diversity", last, first, above)]
    # Not in the paper: the same noise without the signal (objective.shuffle_advantages), if such runs were measured.
    placebos = [(role, f"{role}-placebo") for role in m.betas if _present(m, f"{role}-placebo")]
    controls = [_compare(m, "diversity", *pair) for pair in placebos]
    return [*steps, *whole, _compare(m, "diversity", last, BASE, above, -1), *controls]


def beta_costs_adherence(m: Measured) -> list[Part]:
    """5. Larger β costs some quality, through adherence more than preference."""
    first, last = m.ends

    def shares() -> Interval:
        rows = [values_of(m, name, metric) for metric in ("quality", "preference") for name in m.ends]
        # Quality is ω · adherence + preference, so quality minus preference is ω · adherence.
        return bootstrap(lambda v: (v[0] - v[1]) - 2 * (v[2] - v[3]), rows)

    return [
        _compare(m, "quality", last, first, below),
        part(f"loss of quality from {first} to {last}: through ω · adherence − through preference", shares, above()),
        _compare(m, "adherence", last, first),
        _compare(m, "preference", last, first),
    ]


def n_is_a_factor(m: Measured) -> list[Part]:
    """12. N=2 against 4 and 8, by both estimators: is the paper's finding the 1/N factor?"""
    shared = [_compare(m, "diversity", "n2", other, above) for other in ("n4-shared", "n8-shared")]
    pairs = [_compare(m, "diversity", "n2", other, below, 1) for other in ("n4", "beta15")]
    return [*shared, *pairs]


def vendi_ranks_alike(m: Measured) -> list[Part]:
    """13. Vendi and 1−mean rank models alike."""

    def tau() -> Interval:
        names = [BASE, CFG, *(name for name in m.betas if _present(m, name))]
        if len(names) < 4:
            raise NotMeasuredError("at least four models")
        rows = [values_of(m, name, metric) for metric in ("diversity", "vendi") for name in names]
        return bootstrap(lambda v: rank_agreement(v[: len(names)], v[len(names) :]), rows)

    return [part("Kendall's τ between both rankings of base, CFG and every β", tau, above(0.8))]


def entropy_does_not_follow(m: Measured) -> list[Part]:
    """14. Entropy does not follow diversity."""
    diverse = m.betas[-1]

    def positions() -> Interval:
        names = (BASE, CFG, diverse)
        rows = [values_of(m, name, metric) for metric in ("diversity", "entropy") for name in names]

        def gap(v: NDArray) -> float:
            (base, cfg, beta), (base_e, cfg_e, beta_e) = v[:3], v[3:]
            return (beta - cfg) / (base - cfg) - (beta_e - cfg_e) / (base_e - cfg_e)

        return bootstrap(gap, rows)

    text = f"position of {diverse} between CFG (0) and base (1): in diversity − in entropy"
    return [part(text, positions, above()), _compare(m, "entropy", diverse, CFG)]


def gain_is_not_gamed(m: Measured) -> list[Part]:
    """16. Held-out diversity: how much of the gain is the reward being gamed?"""
    first, last = m.ends

    def gamed() -> Interval:
        names = (BASE, CFG, first, last)
        metrics = ("diversity", "diversity_heldout")
        rows = [values_of(m, name, metric) for metric in metrics for name in names]

        def share(v: NDArray) -> float:
            # Embedders differ in scale, so a gain is divided by the distance between CFG and base.
            gains = [(diverse - good) / (base - cfg) for base, cfg, good, diverse in (v[:4], v[4:])]
            return 1 - gains[1] / gains[0]

        return bootstrap(share, rows)

    return [
        _compare(m, "diversity_heldout", last, first, above),
        _compare(m, "diversity", last, first),
        part("share of the gain that the held-out embedder does not measure (gains relative to base − CFG)", gamed),
    ]


def _present(m: Measured, name: str) -> bool:
    try:
        return bool(m.model(name))
    except NotMeasuredError:
        return False
