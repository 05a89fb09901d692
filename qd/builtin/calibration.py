"""Sets the fixed affine scale of the scorers on real held-out clips, before they measure any model.

On the clips of the split "calibration" (half of them through the codec, each with its own description), both scores get
mean 0; preference gets standard deviation 1 and adherence 1/5, so that both terms of 5 · adherence + preference vary
equally (Section 3.1 chooses the weight 5 for the same reason).
"""

from __future__ import annotations

import torch
from torch import Tensor

from qd.builtin.clip_bank import ClipBank
from qd.data.world.timbres import SAMPLE_RATE
from qd.scorers.adherence import AdherenceScorer
from qd.scorers.affine import affine
from qd.scorers.preference import PreferenceScorer
from qd.scorers.protocol import ADHERENCE_WEIGHT

DEVIATIONS = {"adherence": 1.0 / ADHERENCE_WEIGHT, "preference": 1.0}
CALIBRATION_CLIPS = 1024
_BATCH = 64


def calibrate(scorer: AdherenceScorer | PreferenceScorer, bank: ClipBank) -> dict[str, float]:
    """Sets the scorer's scale and offset, and returns them for the card."""
    scorer.config.scale, scorer.config.offset = 1.0, 0.0
    scorer.config.scale, scorer.config.offset = affine(scores(scorer, bank), DEVIATIONS[scorer.name])
    return {"scale": scorer.config.scale, "offset": scorer.config.offset}


def scores(scorer: AdherenceScorer | PreferenceScorer, bank: ClipBank) -> Tensor:
    """Scores each clip with its own description, ``(clips,)``."""
    texts = [label["description"] for label in bank.labels]
    batches = [slice(first, first + _BATCH) for first in range(0, len(bank), _BATCH)]
    return torch.cat([scorer(bank.audio(rows), SAMPLE_RATE, texts[rows]) for rows in batches])
