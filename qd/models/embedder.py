"""What the diversity reward asks of an embedder, and how one is found by name."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import Tensor

from qd.models.audio_vit import AudioViT
from qd.models.resolver import resolve_asset

BUILTIN = {"builtin": "embedder", "builtin-heldout": "embedder_heldout"}
"""The shipped embedders: the reward's, and the one that no reward ever hears."""


@runtime_checkable
class Embedder(Protocol):
    """Maps audio ``(batch, samples)`` to unit-norm embeddings ``(batch, embedding_width)``, silence included."""

    @property
    def sample_rate(self) -> int:
        """The rate it hears, in Hz."""

    @property
    def embedding_width(self) -> int:
        """Length of an embedding."""

    def __call__(self, audio: Tensor, sample_rate: int | None = None) -> Tensor:
        """Embeddings of the audio; a ``sample_rate`` other than the embedder's raises ValueError."""


def load_embedder(name_or_folder: str | Path) -> AudioViT:
    """A frozen embedder in eval mode: ``builtin``, ``builtin-heldout``, a folder that ``AudioViT.save_pretrained``
    wrote, or the folder of an embedder run, which holds one in ``embedder/``.

    Raises:
        ValueError: there is no embedder of that name or in that folder.
    """
    if (name := str(name_or_folder)) in BUILTIN:
        folder = Path(resolve_asset(BUILTIN[name]))
    else:
        folder = Path(name_or_folder)
        if (folder / "embedder" / "config.json").is_file():
            folder = folder / "embedder"
        elif not (folder / "config.json").is_file():
            raise ValueError(
                f"embedder {name!r}: expected {' or '.join(BUILTIN)}, a folder with config.json and model.safetensors, "
                "or the folder of a finished embedder run"
            )
    return AudioViT.from_pretrained(folder).requires_grad_(False)
