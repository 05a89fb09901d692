"""The embedder interface of the diversity reward, and loading by name."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import Tensor

from qd.models.checkpoints.pretrained import FOLDER, ModelName, check_source, parse_name
from qd.models.checkpoints.resolver import resolve_asset
from qd.models.embedders.audio_vit import AudioViT
from qd.models.embedders.clap import CLAP, ClapEmbedder
from qd.models.embedders.clip_embedder import ClipEmbedder
from qd.models.embedders.muq import MUQ, MuqEmbedder
from qd.models.embedders.vggish import VGGish
from qd.runs.extras import require

SHIPPED_EMBEDDERS = {"builtin": "embedder", "builtin-heldout": "embedder_heldout"}
"""Assets of the shipped embedders: the reward's, and the one that is used for measuring only."""
PRETRAINED = {"clap": CLAP, "muq": MUQ}
"""Kinds of pretrained embedders with their default models."""
FAD_KINDS = {**PRETRAINED, "vggish": ""}
"""Kinds of embedders for the Fréchet audio distance; VGGish needs a file of weights."""


@runtime_checkable
class Embedder(Protocol):
    """Maps audio ``(batch, samples)`` to unit-norm embeddings ``(batch, embedding_width)``, silence included."""

    @property
    def sample_rate(self) -> int:
        """Sample rate of the expected audio, in Hz."""

    @property
    def embedding_width(self) -> int:
        """Length of an embedding vector."""

    @property
    def clip_seconds(self) -> float:
        """Longest clip of one forward pass, in seconds; longer audio gets the normalised mean over windows."""

    def __call__(self, audio: Tensor, sample_rate: int | None = None) -> Tensor:
        """Embeds the audio. Raises ``ValueError`` if ``sample_rate`` is not the embedder's."""


def load_embedder(name_or_folder: str | Path) -> ClipEmbedder:
    """Loads a frozen embedder in eval mode by its name:

    - ``builtin`` and ``builtin-heldout``: the shipped embedders;
    - a folder that ``AudioViT.save_pretrained`` wrote, or an embedder run, whose embedder is in ``embedder/``;
    - ``clap:<hub name or folder>``: the audio tower of a CLAP model; ``clap`` alone is ``laion/larger_clap_music``;
    - ``muq:<hub name or folder>``: MuQ (extra ``muq``); ``muq`` alone is ``OpenMuQ/MuQ-large-msd-iter``.

    Raises:
        ValueError: the name is unknown, the folder holds no embedder, or an extra is missing.
    """
    return _load(parse_name(name_or_folder, SHIPPED_EMBEDDERS, PRETRAINED))


def check_embedder(name_or_folder: str | Path) -> None:
    """Raises the errors of :func:`load_embedder` that can be found without loading a large model."""
    _check(parse_name(name_or_folder, SHIPPED_EMBEDDERS, PRETRAINED))


def load_fad_embedder(name: str) -> Embedder:
    """Loads VGGish from a file of weights, ``vggish:<file>``, or any embedder of :func:`load_embedder`."""
    return _load(parse_name(name, SHIPPED_EMBEDDERS, FAD_KINDS))


def check_fad_embedder(name: str) -> None:
    """Raises the errors of :func:`load_fad_embedder` that can be found without loading a large model."""
    _check(parse_name(name, SHIPPED_EMBEDDERS, FAD_KINDS))


def _load(name: ModelName) -> Embedder:
    kind, source = name
    if kind == "clap":
        return ClapEmbedder.from_pretrained(source)
    if kind == "muq":
        return MuqEmbedder.from_pretrained(source)
    if kind == "vggish":
        return VGGish.from_file(source)
    folder = _embedder_folder(source) if kind == FOLDER else resolve_asset(source)
    return AudioViT.from_pretrained(folder).requires_grad_(False)


def _check(name: ModelName) -> None:
    kind, source = name
    if kind == "muq":
        require("muq", "muq")
    if kind in PRETRAINED:
        check_source(source, "clap" if kind == "clap" else None)
    else:
        _load(name)


def _embedder_folder(name: str) -> Path:
    folder = Path(name)
    if (folder / "embedder" / "config.json").is_file():
        return folder / "embedder"
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"embedder {name!r}: expected {' or '.join(SHIPPED_EMBEDDERS)}, a folder with config.json and "
            "model.safetensors, the folder of a finished embedder run, clap:<hub name or folder> or "
            "muq:<hub name or folder>"
        )
    return folder
