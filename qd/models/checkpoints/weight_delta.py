"""Finetuned models stored as weight deltas to the built-in base, which takes a quarter of the bytes.

The delta of a matrix is stored in 8 bits: row r as round(d_r / s_r), with the step s_r = max|d_r| / 127 stored in
float32. The delta of a vector is stored exactly. Text encoder and codec are copied from the base and not stored again.
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
from qd.runs.cache import cache_folder, made_once
from qd.runs.disk import disk_problem

DELTA_FILE = "difference.safetensors"
TRAINED = ("decoder/model.safetensors", "projection.safetensors")
"""Files of a checkpoint in the built-in layout that training changes; not every checkpoint has the second one."""

DESCRIPTIONS = ("config.json", "generation_config.json")
"""Files of the decoder that are stored next to the delta."""

CARDS = ("README.md", "recipe.yaml")

_LEVELS = 127
_STEP = ".step"
_BASE = "base"


def trained_tensors(folder: Path) -> dict[str, Tensor]:
    """Reads the tensors that training changes, in float32, from a checkpoint in the built-in layout.

    Their names are ``<file>/<name>``.
    """
    files = [file for file in TRAINED if (folder / file).is_file()]
    return {f"{file}/{name}": tensor.float() for file in files for name, tensor in load_file(folder / file).items()}


def base_fingerprint(base: Path) -> str:
    """Returns the fingerprint of a complete checkpoint, over all its weights."""
    files = sorted(base.rglob("*.safetensors"))
    headers = {file.relative_to(base).as_posix(): read_header(file) for file in files}
    return stored_fingerprint(
        {f"{at}/{name}": t for at, header in headers.items() for name, t in header.tensors.items()}
    )


def write_delta(file: Path, model: Path, base: Path) -> float:
    """Writes the weight delta between a finetuned model and its base.

    Args:
        file: Output file.
        model: Finetuned model, in the built-in layout.
        base: Its base, with the same tensors.

    Returns:
        Quantisation error: its root mean square, divided by that of the delta; 0 if the delta is 0.
    """
    before, after = trained_tensors(base), trained_tensors(model)
    deltas = {name: after[name] - tensor for name, tensor in before.items()}
    stored = {key: tensor for name, tensor in deltas.items() for key, tensor in _quantised(name, tensor).items()}
    save_file(stored, file, {_BASE: base_fingerprint(base)})
    restored = read_delta(file)
    error = sum((restored[name] - tensor).square().sum().item() for name, tensor in deltas.items())
    return (error / (sum(tensor.square().sum().item() for tensor in deltas.values()) or 1.0)) ** 0.5


def read_delta(file: Path) -> dict[str, Tensor]:
    """Reads the deltas in float32, with the names of :func:`trained_tensors`."""
    stored = load_file(file)
    return {
        name: tensor.float() * stored[name + _STEP] if name + _STEP in stored else tensor
        for name, tensor in stored.items()
        if not name.endswith(_STEP)
    }


def restore_checkpoint(asset: Path, base: Path) -> Path:
    """Returns the complete checkpoint folder of a shipped model, which the first call creates in the cache folder.

    A damaged folder is created again. Several processes may call this at the same time: one creates the folder.

    Args:
        asset: Folder with the delta, the decoder's config files and the model card.
        base: Base checkpoint of the delta.

    Raises:
        ValueError: the delta belongs to another base, or the folder cannot be written.
    """
    identity = hashlib.sha256(base_fingerprint(base).encode())
    for file in (DELTA_FILE, *DESCRIPTIONS, *CARDS):
        identity.update((asset / file).read_bytes())
    folder = cache_folder() / "models" / f"{asset.name}-{identity.hexdigest()[:16]}"

    def restore() -> None:
        _check_base(asset / DELTA_FILE, base)
        with atomic_folder(folder, replace=True) as temporary:
            _write_checkpoint(asset, base, temporary)

    try:
        return made_once(folder, restore)
    except OSError as error:
        raise ValueError(
            f"model '{asset.name}' cannot be restored: {disk_problem(error, 'run the same command again', folder)}; or "
            "set another cache folder in the environment: QD_CACHE=<folder>"
        ) from error


def _quantised(name: str, delta: Tensor) -> Mapping[str, Tensor]:
    if delta.ndim < 2:
        return {name: delta}
    step = delta.abs().amax(dim=-1, keepdim=True) / _LEVELS
    levels = (delta / step.where(step > 0, torch.ones(()))).round()
    return {name: levels.to(torch.int8), name + _STEP: step}


def _check_base(file: Path, base: Path) -> None:
    with safe_open(file, framework="pt") as stored:
        expected = (stored.metadata() or {}).get(_BASE, "an unknown one")
    if expected != base_fingerprint(base):
        raise ValueError(
            f"'{file}' is the delta to another base model ({expected[:16]}) than '{base}' "
            f"({base_fingerprint(base)[:16]}); train on this base, and ship that run with `make ship`"
        )


def _write_checkpoint(asset: Path, base: Path, folder: Path) -> None:
    for part in ("text_encoder", "codec"):
        shutil.copytree(base / part, folder / part)
    (folder / "decoder").mkdir()
    for file in DESCRIPTIONS:
        shutil.copyfile(asset / file, folder / "decoder" / file)
    for file in CARDS:
        shutil.copyfile(asset / file, folder / file)
    tensors, deltas = trained_tensors(base), read_delta(asset / DELTA_FILE)
    for file in TRAINED:
        sums = {name: (tensors[name] + deltas[name]).contiguous() for name in tensors if name.startswith(file)}
        if sums:
            save_file({name.removeprefix(f"{file}/"): t for name, t in sums.items()}, folder / file, {"format": "pt"})
