"""The card of a preference scorer that a user trained: how it was made, and how well it judges."""

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

scale · logit + offset, where the logit of a Bradley–Terry model is a small head over the frozen audio embedder
`{embedder}` ({fingerprint}). The scale gives the rated recordings mean 0 and standard deviation 1. {where} For
evaluation: never train a policy on it.

- Command: `qd train-preference --data {data} --embedder {embedder} --seed {seed} --validation-share \
{validation_share:g} --head-width {head_width} --max-steps {max_steps} --learning-rate {learning_rate:g} \
--weight-decay {weight_decay:g}`
- Data: {rows:,} {kind} ratings of {recordings:,} recordings by {raters}
- Time: {seconds:.1f} s, device {device}

## Held-out quality
{held_out_recordings:,} recordings were held out, none of which is in a comparison that was learned from. The kept step,
{step} of {max_steps}, is the one of the lowest held-out log loss, which flatters these numbers a little.

| | comparisons | ties | accuracy | log loss |
|---|---|---|---|---|
| learned from | {learned_count:,} | {learned_ties:.1%} | {learned_accuracy:.3f} | |
| held out | {held_out_count:,} | {held_out_ties:.1%} | {mean:.3f} [{lo:.3f}, {hi:.3f}] | {log_loss:.3f} |
| chance | | | 0.500 | {chance:.3f} |

Accuracy is of comparisons that are no ties, with a 95 % bootstrap interval over recordings. {listeners}
"""


@dataclass(frozen=True)
class Learned:
    """What was learned from which ratings, and how well it judges recordings that it has not learned from.

    Attributes:
        learned, held_out: comparisons within either side of the split.
        left_out: comparisons of a held-out recording with another, which count on neither side.
        held_out_recordings: how many.
        accuracy: on decided held-out comparisons; ``learned_accuracy`` on those that were learned from.
        log_loss: on held-out comparisons; log 2 is chance.
        agreement: of the listeners with each other, on all comparisons; None where no pair was judged twice.
        step: of the fit, whose weights were kept.
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
    """Writes ``metrics.json`` and ``README.md`` beside the weights.

    Args:
        folder: of the scorer.
        facts: ``data``, ``embedder``, ``fingerprint``, ``head_width``, ``validation_share``, ``device``, ``seconds``.
        fit: how the head was fitted.
        ratings: that were learned from.
        learned: what came of it.
        config: of the scorer.
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
        "where": "It is named, not held here." if config.embedder else "Its weights are held here.",
        "raters": f"{ratings.raters} raters" if ratings.raters else "raters without a name",
        "learned_count": len(learned.learned),
        "held_out_count": len(learned.held_out),
        "learned_ties": 1 - learned.learned.decided.mean(),
        "held_out_ties": 1 - learned.held_out.decided.mean(),
        "chance": CHANCE_LOG_LOSS,
        "listeners": _listeners(learned),
    }
    (folder / "README.md").write_text(_CARD.format(**values), encoding="utf-8")


def _listeners(learned: Learned) -> str:
    found = learned.agreement
    between = ""
    if learned.left_out:
        between = f" {learned.left_out:,} comparisons of a held-out recording with another count on neither side."
    if found is None:
        return (
            f"No two recordings were compared twice, so that nothing is known of the best accuracy possible.{between}"
        )
    return (
        f"{found.pairs:,} pairs were judged more than once: two judgements agree in {found.rate:.1%}, so that no judge "
        f"can be expected to be right in more than {found.ceiling:.1%}.{between}"
    )
