"""The simulated rater whose comparisons train the preference scorer.

It dislikes degraded recordings, wrong notes and unsteady rhythm, and it is as inconsistent as people. The utility of a
clip x is

    u(x) = − w_k · (FLOOR + (1 − FLOOR) · severity) − WRONG_NOTES · rate − UNSTEADINESS · deviation

with w_k the weight of degradation k (0 when clean), the rate of wrong notes, and the standard deviation of the onsets
in seconds. To compare two clips, the rater adds independent Gumbel noise of scale NOISE to each utility and prefers the
larger sum; this is the Bradley–Terry model P(a ≻ b) = σ((u(a) − u(b)) / NOISE). Genre, timbre and tempo have no effect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from qd.data.world.world import Clip

DEGRADATION = {"clean": 0.0, "hiss": 2.0, "muffled": 2.0, "clipping": 2.5, "bitcrush": 2.5, "dropouts": 3.0}
FLOOR = 0.5  # share of a degradation's weight that even its mildest form costs
WRONG_NOTES = 5.0  # a rate of 0.4 costs as much as mild clipping
UNSTEADINESS = 20.0  # per second of deviation: 70 ms cost 1.4
NOISE = 0.5


def utility(clip: Clip) -> float:
    """Returns u(x): 0 for a clean and faultless clip, negative otherwise."""
    weight = DEGRADATION[clip.degradation]
    recording = weight * (FLOOR + (1.0 - FLOOR) * clip.severity)
    return -recording - WRONG_NOTES * clip.piece.wrong_note_rate - UNSTEADINESS * clip.piece.unsteadiness


def preference_probability(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns P(a ≻ b) for utilities of any shape."""
    return 1.0 / (1.0 + np.exp(-(np.asarray(a) - np.asarray(b)) / NOISE))


def compare(a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draws one comparison for each pair: True where the rater prefers the first clip."""
    probability = preference_probability(a, b)
    return rng.random(probability.shape) < probability


def bayes_accuracy(a: np.ndarray, b: np.ndarray) -> float:
    """Accuracy of a predictor that knows the utilities: the mean of max(P, 1 − P), the highest possible."""
    probability = preference_probability(a, b)
    return float(np.maximum(probability, 1.0 - probability).mean())
