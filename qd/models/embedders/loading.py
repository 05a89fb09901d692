"""What the diversity reward asks of an embedder, and how one is found by name."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import Tensor

from qd.models.checkpoints.pretrained import check_source, split_name
from qd.models.checkpoints.resolver import resolve_asset
from qd.models.embedders.audio_vit import AudioViT
from qd.models.embedders.clap import CLAP, ClapEmbedder
from qd.models.embedders.clip_embedder import ClipEmbedder
from qd.models.embedders.muq import MUQ, MuqEmbedder
from qd.models.embedders.vggish import VGGish
from qd.runs.extras import require

SHIPPED_EMBEDDERS = {"builtin": "embedder", "builtin-heldout": "embedder_heldout"}
"""The shipped embedders: the reward's, and the one that no reward ever hears."""
PRETRAINED = {"clap": CLAP, "muq": MUQ}
"""Kinds of other people's embedders, and which one a kind alone stands for."""


@runtime_checkable
class Embedder(Protocol):
    """Maps audio ``(batch, samples)`` to unit-norm embeddings ``(batch, embedding_width)``, silence included."""

    @property
    def sample_rate(self) -> int:
        """The rate it hears, in Hz."""

    @property
    def embedding_width(self) -> int:
        """Length of an embedding."""

    @property
    def clip_seconds(self) -> float:
        """The longest clip that it hears at once; longer audio gets the normalised mean over windows of it."""

    def __call__(self, audio: Tensor, sample_rate: int | None = None) -> Tensor:
        """Embeddings of the audio; a ``sample_rate`` other than the embedder's raises ValueError."""


def load_embedder(name_or_folder: str | Path) -> ClipEmbedder:
    """A frozen embedder in eval mode, by its name:

    - ``builtin`` and ``builtin-heldout``: the shipped ones;
    - a folder that ``AudioViT.save_pretrained`` wrote, or that of an embedder run, which holds one in ``embedder/``;
    - ``clap:<hub name or folder>``: the audio half of a CLAP model; ``clap`` alone is ``laion/larger_clap_music``;
    - ``muq:<hub name or folder>``: MuQ, by the extra ``muq``; ``muq`` alone is ``OpenMuQ/MuQ-large-msd-iter``.

    Raises:
        ValueError: there is no embedder of that name or in that folder, or an extra is missing.
    """
    kind, source = split_name(name_or_folder, PRETRAINED)
    if kind == "clap":
        return ClapEmbedder.from_pretrained(source)
    if kind == "muq":
        return MuqEmbedder.from_pretrained(source)
    return AudioViT.from_pretrained(_folder(source)).requires_grad_(False)


def check_embedder(name_or_folder: str | Path) -> None:
    """Raises what :func:`load_embedder` would raise, as far as that shows without loading a large model."""
    kind, source = split_name(name_or_folder, PRETRAINED)
    if kind == "muq":
        require("muq", "muq")
    if kind:
        check_source(source, "clap" if kind == "clap" else None)
    else:
        load_embedder(source)


def _folder(name: str) -> Path:
    if name in SHIPPED_EMBEDDERS:
        return Path(resolve_asset(SHIPPED_EMBEDDERS[name]))
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


VGGISH = "vggish:"


def load_listener(name: str) -> Embedder:
    """VGGish by its weights, ``vggish:<file>``, or any other embedder by its name."""
    return VGGish.from_file(name.removeprefix(VGGISH)) if name.startswith(VGGISH) else load_embedder(name)


def check_listener(name: str) -> None:
    """Raises what :func:`load_listener` would raise, as far as that shows without loading a large model."""
    if name.startswith(VGGISH):
        VGGish.from_file(name.removeprefix(VGGISH))
    else:
        check_embedder(name)
