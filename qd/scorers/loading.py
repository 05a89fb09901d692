"""Loads the two scorers of a measurement by their names in a config."""

from __future__ import annotations

from pathlib import Path

from qd.data.world.world import BUILTIN
from qd.models.checkpoints.pretrained import check_source, split_name
from qd.models.checkpoints.resolver import resolve_asset
from qd.models.embedders.clap import CLAP
from qd.runs.extras import require
from qd.scorers.adherence import AdherenceScorer
from qd.scorers.audiobox import AUDIOBOX, AudioboxScorer
from qd.scorers.clap import load_clap_scorer
from qd.scorers.muq_mulan import MUQ_MULAN, load_muq_mulan
from qd.scorers.preference import PreferenceScorer
from qd.scorers.protocol import ADHERENCE_WEIGHT, Quality, Scorer

ADHERENCE = {"clap": CLAP, "muq-mulan": MUQ_MULAN}
PREFERENCE = {"audiobox": AUDIOBOX}
"""Kinds of third-party scorers, with the model that a kind without a source means."""


def load_quality(
    adherence: str = BUILTIN, preference: str = BUILTIN, adherence_weight: float = ADHERENCE_WEIGHT
) -> Quality:
    """Loads s_quality = ω · s_adherence + s_preference from the names of both scorers, frozen and in eval mode.

    Raises:
        ValueError: a scorer is unknown or cannot be loaded, or an extra is missing.
    """
    return Quality(load_adherence(adherence), load_preference(preference), adherence_weight)


def load_adherence(name: str) -> Scorer:
    """Loads ``builtin``, ``clap[:<hub name or folder>]`` or ``muq-mulan[:<hub name or folder>]``."""
    kind, source = split_name(name, ADHERENCE)
    if kind == "clap":
        return load_clap_scorer(source)
    if kind == "muq-mulan":
        return load_muq_mulan(source)
    check_adherence(name)
    return AdherenceScorer.from_pretrained(resolve_asset("adherence"))


def load_preference(name: str) -> Scorer:
    """Loads ``builtin``, ``audiobox[:<hub name or folder>]``, or the folder of a trained preference scorer."""
    kind, source = split_name(name, PREFERENCE)
    if kind == "audiobox":
        return AudioboxScorer.from_pretrained(source)
    check_preference(name)
    return PreferenceScorer.from_pretrained(resolve_asset("preference") if name == BUILTIN else name)


def check_adherence(name: str) -> None:
    """Raises the errors of :func:`load_adherence` that can be detected without loading a model."""
    kind, source = split_name(name, ADHERENCE)
    if kind == "muq-mulan":
        require("muq", "muq")
    if kind:
        check_source(source, "clap" if kind == "clap" else None)
    elif name != BUILTIN:
        raise ValueError(
            f"adherence scorer {name!r}: expected {BUILTIN}, clap:<hub name or folder> or "
            "muq-mulan:<hub name or folder>"
        )


def check_preference(name: str) -> None:
    """Raises the errors of :func:`load_preference` that can be detected without loading a model."""
    kind, source = split_name(name, PREFERENCE)
    if kind:
        require("audiobox_aesthetics.model.aes", "audiobox")
        check_source(source)
    elif name != BUILTIN and not Path(name).is_dir():
        raise ValueError(
            f"preference scorer {name!r}: expected {BUILTIN}, audiobox:<hub name or folder>, or the folder of a "
            "trained preference scorer"
        )
    elif name != BUILTIN:
        check_source(name, PreferenceScorer.name)
