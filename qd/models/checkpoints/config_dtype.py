"""The ``dtype`` in a saved model's ``config.json``: the transformers library loads all weights in that type."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from qd.models.checkpoints.json_files import read_object


def write_dtype(model: Path, dtype: torch.dtype) -> None:
    """Replaces every ``dtype`` in the folder's config by this type, including those of the model's parts."""
    file = model / "config.json"
    config = read_object(file)
    corrected = _with_dtype(config, str(dtype).removeprefix("torch."))
    if corrected != config:
        file.write_text(json.dumps(corrected, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _with_dtype(tree: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    corrected = dict(tree)
    for key, value in tree.items():
        if isinstance(value, Mapping):
            corrected[key] = _with_dtype(value, dtype)
        elif key in ("dtype", "torch_dtype") and value is not None:
            corrected[key] = dtype
    return corrected
