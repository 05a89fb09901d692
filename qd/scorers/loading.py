"""Loads the two scorers of a measurement by their names in a config."""

from __future__ import annotations

from pathlib import Path

from qd.data.world.world import BUILTIN
from qd.models.checkpoints.pretrained import FOLDER, check_source, parse_name
from qd.models.checkpoints.resolver import resolve_asset
from qd.models.embedders.clap import CLAP
from qd.runs.extras import require
from qd.scorers.adherence import AdherenceScorer
from qd.scorers.audiobox import AUDIOBOX, AudioboxScorer
from qd.scorers.clap import load_clap_scorer
from qd.scorers.muq_mulan import MUQ_MULAN, load_muq_mulan
from qd.scorers.preference import PreferenceScorer
from qd.scorers.protocol import ADHERENCE_WEIGHT, Quality, Scorer

ADHERENCE = {BUILTIN: "adherence"}, {"clap": CLAP, "muq-mulan": MUQ_MULAN}
PREFERENCE = {BUILTIN: "preference"}, {"audiobox": AUDIOBOX}
"""Shipped scorers with their assets, and kinds of pretrained scorers with their default models."""


def load_quality(
    adherence: str = BUILTIN, preference: str = BUILTIN, adherence_weight: float = ADHERENCE_WEIGHT
) -> Quality:
    """Returns s_quality = ω · s_adherence + s_preference with the named scorers, frozen and in eval mode.

    Raises:
        ValueError: A scorer is unknown or cannot be loaded, or an extra is missing.
    """
    return Quality(load_adherence(adherence), load_preference(preference), adherence_weight)


def load_adherence(name: str) -> Scorer:
    """Loads ``builtin``, ``clap[:<hub name or folder>]`` or ``muq-mulan[:<hub name or folder>]``."""
    kind, source = parse_name(name, *ADHERENCE)
    if kind == "clap":
        return load_clap_scorer(source)
    if kind == "muq-mulan":
        return load_muq_mulan(source)
    check_adherence(name)
    return AdherenceScorer.from_pretrained(resolve_asset(source))


def load_preference(name: str) -> Scorer:
    """Loads ``builtin``, ``audiobox[:<hub name or folder>]``, or the folder of a trained preference scorer."""
    kind, source = parse_name(name, *PREFERENCE)
    if kind == "audiobox":
        return AudioboxScorer.from_pretrained(source)
    check_preference(name)
    return PreferenceScorer.from_pretrained(resolve_asset(source) if kind == BUILTIN else source)


def check_adherence(name: str) -> None:
    """Raises the errors of :func:`load_adherence` that can be found without loading a model."""
    kind, source = parse_name(name, *ADHERENCE)
    if kind == FOLDER:
        raise ValueError(
            f"adherence scorer {name!r}: expected {BUILTIN}, clap:<hub name or folder> or "
            "muq-mulan:<hub name or folder>"
        )
    if kind == "muq-mulan":
        require("muq", "muq")
    if kind != BUILTIN:
        check_source(source, "clap" if kind == "clap" else None)


def check_preference(name: str) -> None:
    """Raises the errors of :func:`load_preference` that can be found without loading a model."""
    kind, source = parse_name(name, *PREFERENCE)
    if kind == "audiobox":
        require("audiobox_aesthetics.model.aes", "audiobox")
        check_source(source)
    elif kind == FOLDER and not Path(source).is_dir():
        raise ValueError(
            f"preference scorer {name!r}: expected {BUILTIN}, audiobox:<hub name or folder>, or the folder of a "
            "trained preference scorer"
        )
    elif kind == FOLDER:
        check_source(source, PreferenceScorer.name)
