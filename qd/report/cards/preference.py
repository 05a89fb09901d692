"""The card of a preference scorer that a user trained: how it was trained, and how accurate it is."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qd.data.comparisons import Comparisons
from qd.data.ratings import Ratings
from qd.metrics.bootstrap import Interval
from qd.metrics.preference import Agreement
from qd.modules.preference import HeadFit
from qd.scorers.preference import PreferenceConfig

CHANCE_LOG_LOSS = math.log(2)
_CARD = """# A preference scorer

The score is scale · logit + offset. The logit of a Bradley–Terry model comes from a small head on the frozen audio
embedder `{embedder}` ({fingerprint}). Scale and offset give the rated recordings mean 0 and standard deviation 1.
{where} For evaluation only: never train a policy on it.

- Command: `qd train-preference --data {data} --embedder {embedder} --seed {seed} --validation-share \
{validation_share:g} --head-width {head_width} --max-steps {max_steps} --learning-rate {learning_rate:g} \
--weight-decay {weight_decay:g}`
- Data: {rows:,} {kind} ratings of {recordings:,} recordings by {raters}
- Time: {seconds:.1f} s, device {device}

## Held-out quality
{held_out_recordings:,} recordings were held out; no training comparison contains one of them. The weights are from step
{step} of {max_steps}, which has the lowest held-out log loss. This choice makes the numbers slightly optimistic.

| | comparisons | ties | accuracy | log loss |
|---|---|---|---|---|
| training | {learned_count:,} | {learned_ties:.1%} | {learned_accuracy:.3f} | |
| held out | {held_out_count:,} | {held_out_ties:.1%} | {mean:.3f} [{lo:.3f}, {hi:.3f}] | {log_loss:.3f} |
| chance | | | 0.500 | {chance:.3f} |

Accuracy is over comparisons that are not ties, with a 95 % bootstrap interval over recordings. {agreement_text}
"""


@dataclass(frozen=True)
class Learned:
    """The training and held-out comparisons of a preference scorer, and its accuracy on both.

    Attributes:
        learned: Training comparisons.
        held_out: Comparisons between held-out recordings.
        left_out: Number of comparisons between a held-out recording and another one; they are in neither set.
        held_out_recordings: Number of held-out recordings.
        accuracy: Accuracy on held-out comparisons that are not ties.
        learned_accuracy: Accuracy on training comparisons that are not ties.
        log_loss: Log loss on held-out comparisons; log 2 is chance.
        agreement: Agreement between raters over all comparisons; None if no pair was rated twice.
        step: Training step of the weights.
    """

    learned: Comparisons
    held_out: Comparisons
    left_out: int
    held_out_recordings: int
    accuracy: Interval
    learned_accuracy: float
    log_loss: float
    agreement: Agreement | None
    step: int


def write_card(
    folder: Path,
    facts: Mapping[str, Any],
    fit: HeadFit,
    ratings: Ratings,
    learned: Learned,
    config: PreferenceConfig,
) -> None:
    """Writes ``metrics.json`` and ``README.md`` next to the weights.

    Args:
        folder: Folder of the scorer.
        facts: ``data``, ``embedder``, ``fingerprint``, ``head_width``, ``validation_share``, ``device``, ``seconds``.
        fit: Settings of the fit.
        ratings: The ratings.
        learned: The comparisons, and the scorer's accuracy.
        config: Config of the scorer.
    """
    measured = {
        **facts, **vars(fit), "rows": ratings.rows, "kind": ratings.kind, "raters": ratings.raters,
        "recordings": len(ratings.paths), "held_out_recordings": learned.held_out_recordings,
        "learned_comparisons": len(learned.learned), "held_out_comparisons": len(learned.held_out),
        "left_out_comparisons": learned.left_out, "step": learned.step, "accuracy": learned.accuracy._asdict(),
        "learned_accuracy": learned.learned_accuracy, "log_loss": learned.log_loss,
        "agreement": learned.agreement._asdict() if learned.agreement else None,
        "scale": config.scale, "offset": config.offset,
    }  # fmt: skip
    (folder / "metrics.json").write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
    values = measured | learned.accuracy._asdict()
    values |= {
        "fingerprint": measured["fingerprint"][:8],
        "where": "The embedder is not in this folder."
        if config.embedder
        else "The embedder's weights are in this folder.",
        "raters": f"{ratings.raters} raters" if ratings.raters else "unnamed raters",
        "learned_count": len(learned.learned),
        "held_out_count": len(learned.held_out),
        "learned_ties": 1 - learned.learned.decided.mean(),
        "held_out_ties": 1 - learned.held_out.decided.mean(),
        "chance": CHANCE_LOG_LOSS,
        "agreement_text": _agreement(learned),
    }
    (folder / "README.md").write_text(_CARD.format(**values), encoding="utf-8")


def _agreement(learned: Learned) -> str:
    agreement = learned.agreement
    between = ""
    if learned.left_out:
        between = f" {learned.left_out:,} comparisons between a held-out recording and another one are in neither row."
    if agreement is None:
        return f"No pair of recordings was compared twice, so the best possible accuracy is unknown.{between}"
    return (
        f"{agreement.pairs:,} pairs were compared more than once. Two ratings of a pair agree in {agreement.rate:.1%}, "
        f"so no scorer can be expected to exceed an accuracy of {agreement.ceiling:.1%}.{between}"
    )
