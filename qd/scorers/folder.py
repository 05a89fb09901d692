"""Shared parts of the shipped scorers: their folder format, their version, and the shape of the audio tower."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor

from qd.models.checkpoints.json_files import read_object
from qd.models.embedders.audio_vit import AudioViTConfig

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"


def tower_config(layers: int = 4) -> AudioViTConfig:
    """Returns the shape of a shipped scorer's audio tower, with 25 frames a second.

    The mean and standard deviation of the log-mel power were measured once on clips of the built-in world.
    """
    return AudioViTConfig(layers=layers, embedding_width=128, hop_length=640, n_mels=96, mel_mean=-1.4, mel_std=4.9)


def save_scorer(folder: str | Path, name: str, config: Any, tensors: Mapping[str, Tensor], half: bool) -> Path:
    """Writes ``config.json`` and ``model.safetensors`` (float16 if ``half``); returns the folder.

    Args:
        folder: Output folder, created if needed.
        name: Name of the scorer, such as ``preference``.
        config: Dataclass of the scorer's settings; fields that are None are omitted.
        tensors: Weights of the scorer.
        half: Whether to write half precision.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    content = {"model_type": name, **{key: value for key, value in asdict(config).items() if value is not None}}
    (folder / CONFIG).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    dtype = torch.float16 if half else torch.float32
    save_file({key: t.detach().to("cpu", dtype).contiguous() for key, t in tensors.items()}, folder / WEIGHTS)
    return folder


def read_config(folder: Path, name: str, files: Sequence[str] = (CONFIG, WEIGHTS)) -> dict[str, Any]:
    """Reads the fields of a scorer's config. Raises ``ValueError`` if a file is missing or of another scorer."""
    missing = [file for file in files if not (folder / file).is_file()]
    if missing:
        raise ValueError(f"scorer folder {folder} lacks {', '.join(missing)}; expected what save_pretrained writes")
    content = read_object(folder / CONFIG)
    if (model_type := content.pop("model_type", None)) != name:
        raise ValueError(f"scorer folder {folder} holds {model_type!r}, expected {name!r}")
    return content


def folder_version(folder: Path) -> str:
    """Returns the scorer's version: a hash of the folder's files, which changes whenever the scores may change."""
    paths = [folder / name for name in (CONFIG, WEIGHTS, TOKENIZER)]
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths if path.is_file())).hexdigest()[:8]


def read_tokenizer(file: Path) -> Tokenizer:
    """Reads a ``tokenizer.json``. Raises ``ValueError`` if it is damaged."""
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises Exception itself
        raise ValueError(f"{file} is damaged ({str(error).strip().splitlines()[0]}); save the scorer again") from None
