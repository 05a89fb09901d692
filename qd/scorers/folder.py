"""What all scorers share: the folder that each is saved to, its version, the shape of the audio tower."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from qd.models.checkpoints.json_files import read_object
from qd.models.embedders.audio_vit import AudioViTConfig

CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"


def tower_config(layers: int = 4) -> AudioViTConfig:
    """The audio tower of a shipped scorer: 25 frames a second; the mean and the standard deviation of the log-mel power
    of the built-in world's clips were measured once."""
    return AudioViTConfig(layers=layers, embedding_width=128, hop_length=640, n_mels=96, mel_mean=-1.4, mel_std=4.9)


def save_scorer(folder: str | Path, name: str, config: Any, tensors: Mapping[str, Tensor], half: bool) -> Path:
    """Writes ``config.json`` and ``model.safetensors`` (float16 if ``half``); returns the folder.

    Args:
        folder: made if needed.
        name: of the scorer, such as ``preference``.
        config: its dataclass; a field that is None is left out.
        tensors: its weights.
        half: in half precision.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    content = {"model_type": name, **{key: value for key, value in asdict(config).items() if value is not None}}
    (folder / CONFIG).write_text(json.dumps(content, indent=2) + "\n")
    dtype = torch.float16 if half else torch.float32
    save_file({key: t.detach().to("cpu", dtype).contiguous() for key, t in tensors.items()}, folder / WEIGHTS)
    return folder


def read_config(folder: Path, name: str, files: Sequence[str] = (CONFIG, WEIGHTS)) -> dict[str, Any]:
    """The fields of a scorer's config. Raises ``ValueError`` where a file is missing or another scorer lies there."""
    missing = [file for file in files if not (folder / file).is_file()]
    if missing:
        raise ValueError(f"scorer folder {folder} lacks {', '.join(missing)}; expected what save_pretrained writes")
    content = read_object(folder / CONFIG)
    if (found := content.pop("model_type", None)) != name:
        raise ValueError(f"scorer folder {folder} holds {found!r}, expected {name!r}")
    return content


def load_weights(module: nn.Module, folder: Path) -> str:
    """Loads the weights into the module, and returns the version: a hash of the folder's files, so that no change of a
    score goes unnoticed.

    Raises:
        ValueError: the weights do not fit the module.
    """
    try:
        module.load_state_dict({name: t.float() for name, t in load_file(folder / WEIGHTS).items()})
    except (RuntimeError, SafetensorError) as error:
        raise ValueError(f"scorer folder {folder}: weights do not fit config.json: {error}") from None
    paths = [folder / name for name in (CONFIG, WEIGHTS, TOKENIZER)]
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths if path.is_file())).hexdigest()[:8]
