"""Finetuned models as what they differ by from the built-in base: a quarter of the bytes, and one base for all.

A matrix's difference is kept in 8 bits: row r as round(d_r / s_r), with the step s_r = max|d_r| / 127 in float32 beside
it. A vector's difference is kept as it is. Text encoder and codec are the base's own, and are not kept again.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from qd.models.checkpoints.fingerprint import stored_fingerprint
from qd.models.checkpoints.safetensors_files import read_header
from qd.runs.atomic import atomic_folder
from qd.runs.cache import cache_folder

DIFFERENCE = "difference.safetensors"
TRAINED = ("decoder/model.safetensors", "projection.safetensors")
"""Files of a checkpoint in the built-in layout that training changes; the second is only in some."""

DESCRIPTIONS = ("config.json", "generation_config.json")
"""Of the decoder, kept beside the difference."""

CARDS = ("README.md", "recipe.yaml")

_LEVELS = 127
_STEP = ".step"
_BASE = "base"


def trained_tensors(folder: Path) -> dict[str, Tensor]:
    """What training changes of a checkpoint in the built-in layout, in float32, as ``<file>/<name>``."""
    files = [file for file in TRAINED if (folder / file).is_file()]
    return {f"{file}/{name}": tensor.float() for file in files for name, tensor in load_file(folder / file).items()}


def base_fingerprint(base: Path) -> str:
    """A name for a whole checkpoint: equal in all weights, equal name."""
    files = sorted(base.rglob("*.safetensors"))
    headers = {file.relative_to(base).as_posix(): read_header(file) for file in files}
    return stored_fingerprint(
        {f"{at}/{name}": t for at, header in headers.items() for name, t in header.tensors.items()}
    )


def write_difference(file: Path, model: Path, base: Path) -> float:
    """Keeps what a finetuned model differs by from its base.

    Args:
        file: to be made.
        model, base: siblings in the built-in layout, with the same tensors.

    Returns:
        The error: root mean square of what is lost, beside that of the difference; 0 if there is no difference.
    """
    before, after = trained_tensors(base), trained_tensors(model)
    differences = {name: after[name] - tensor for name, tensor in before.items()}
    stored = {key: tensor for name, tensor in differences.items() for key, tensor in _quantised(name, tensor).items()}
    save_file(stored, file, {_BASE: base_fingerprint(base)})
    restored = read_difference(file)
    lost = sum((restored[name] - tensor).square().sum().item() for name, tensor in differences.items())
    return (lost / (sum(tensor.square().sum().item() for tensor in differences.values()) or 1.0)) ** 0.5


def read_difference(file: Path) -> dict[str, Tensor]:
    """The differences in float32, named as by :func:`trained_tensors`."""
    stored = load_file(file)
    return {
        name: tensor.float() * stored[name + _STEP] if name + _STEP in stored else tensor
        for name, tensor in stored.items()
        if not name.endswith(_STEP)
    }


def restore(asset: Path, base: Path) -> Path:
    """The checkpoint folder of a kept model, made once in :func:`~qd.runs.cache.cache_folder` and found there
    from then on.

    Several processes may do this at once: each writes a folder of its own, and the first to finish names it.

    Args:
        asset: folder of the difference, its descriptions and cards.
        base: the checkpoint that it was taken from.

    Raises:
        ValueError: it was taken from another base, or the folder cannot be written.
    """
    identity = hashlib.sha256(base_fingerprint(base).encode())
    for file in (DIFFERENCE, *DESCRIPTIONS, *CARDS):
        identity.update((asset / file).read_bytes())
    folder = cache_folder() / "models" / f"{asset.name}-{identity.hexdigest()[:16]}"
    if folder.is_dir():
        return folder
    _check_base(asset / DIFFERENCE, base)
    try:
        with atomic_folder(folder) as temporary:
            _write_checkpoint(asset, base, temporary)
    except OSError as error:
        if folder.is_dir():  # another process was faster; the content is the same
            return folder
        raise ValueError(
            f"model '{asset.name}' cannot be restored into '{folder.parent}': {error}; make room there, or name "
            "another folder in the environment: QD_CACHE=<folder>"
        ) from error
    return folder


def _quantised(name: str, difference: Tensor) -> Mapping[str, Tensor]:
    if difference.ndim < 2:
        return {name: difference}
    step = difference.abs().amax(dim=-1, keepdim=True) / _LEVELS
    levels = (difference / step.where(step > 0, torch.ones(()))).round()
    return {name: levels.to(torch.int8), name + _STEP: step}


def _check_base(file: Path, base: Path) -> None:
    with safe_open(file, framework="pt") as stored:
        kept = (stored.metadata() or {}).get(_BASE, "an unknown one")
    if kept != base_fingerprint(base):
        raise ValueError(
            f"'{file}' is the difference to another base model ({kept[:16]}) than '{base}' "
            f"({base_fingerprint(base)[:16]}); train on this one, and keep that with `make keep`"
        )


def _write_checkpoint(asset: Path, base: Path, folder: Path) -> None:
    for part in ("text_encoder", "codec"):
        shutil.copytree(base / part, folder / part)
    (folder / "decoder").mkdir()
    for file in DESCRIPTIONS:
        shutil.copyfile(asset / file, folder / "decoder" / file)
    for file in CARDS:
        shutil.copyfile(asset / file, folder / file)
    tensors, differences = trained_tensors(base), read_difference(asset / DIFFERENCE)
    for file in TRAINED:
        mine = {name: (tensors[name] + differences[name]).contiguous() for name in tensors if name.startswith(file)}
        if mine:
            save_file({name.removeprefix(f"{file}/"): t for name, t in mine.items()}, folder / file, {"format": "pt"})
