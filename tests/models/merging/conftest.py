"""Sibling models to merge: checkpoints of one base in both layouts, with different trained parts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.models.conftest import build_library_model, build_tokenizer

LAYOUTS = ("builtin", "library")
TRAINED = ("decoder", "projection", "enc_to_dec_proj")
UNTOUCHED = "lm_heads.0"
"""A trainable tensor that is equal in all siblings."""


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """Reads all weights by file and name, with shards as one file, independently of ``Source.tensors``."""
    tensors = {}
    for file in sorted(folder.rglob("*.safetensors")):
        path = file.parent.relative_to(folder) / file.name.split("-")[0].removesuffix(".safetensors")
        tensors |= {f"{path}:{name}": tensor for name, tensor in load_file(file).items()}
    return tensors


def rewrite(folder: Path, change: Callable[[str, Tensor], Tensor | None]) -> None:
    """Replaces every tensor by ``change(file/name, tensor)``, or removes it if the result is None."""
    for file in sorted(folder.rglob("*.safetensors")):
        path = file.relative_to(folder)
        changed = {name: change(f"{path}/{name}", tensor) for name, tensor in load_file(file).items()}
        save_file({name: tensor for name, tensor in changed.items() if tensor is not None}, file, {"format": "pt"})


def is_trained(path: str) -> bool:
    """Returns whether ``file/name`` is trained: ``decoder/model.safetensors/…`` or ``model.safetensors/decoder.…``."""
    return path.removeprefix("model.safetensors/").startswith(TRAINED) and not path.startswith("text_encoder")


def sibling(folder: Path, target: Path, seed: int) -> Path:
    """Copies a checkpoint and changes its trained tensors."""
    shutil.copytree(folder, target)
    generator = torch.Generator().manual_seed(seed)

    def moved(path: str, tensor: Tensor) -> Tensor:
        unchanged = not is_trained(path) or UNTOUCHED in path
        return tensor if unchanged else tensor + 0.1 * torch.randn(tensor.shape, generator=generator)

    rewrite(target, moved)
    return target


def halved(folder: Path, target: Path, dtype: torch.dtype = torch.float16) -> Path:
    """Copies a checkpoint in half precision."""
    shutil.copytree(folder, target)
    rewrite(target, lambda path, tensor: tensor.to(dtype) if tensor.is_floating_point() else tensor)
    for config in target.rglob("config.json"):
        config.write_text(config.read_text().replace('"float32"', f'"{str(dtype).removeprefix("torch.")}"'))
    return target


def sharded(folder: Path, target: Path, shards: int) -> Path:
    """Copies a checkpoint in the library's layout, divided into shards with an index."""
    shutil.copytree(folder, target)
    weights = load_file(target / "model.safetensors")
    (target / "model.safetensors").unlink()
    shard = {name: f"model-{1 + i % shards:05d}-of-{shards:05d}.safetensors" for i, name in enumerate(weights)}
    for file in set(shard.values()):
        save_file({name: weights[name] for name in weights if shard[name] == file}, target / file, {"format": "pt"})
    index = {"metadata": {"total_size": 0}, "weight_map": shard}
    (target / "model.safetensors.index.json").write_text(json.dumps(index))
    return target


@pytest.fixture(scope="session")
def siblings(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, list[Path]]:
    """Three models per layout, which tests must not change."""
    folder = tmp_path_factory.mktemp("siblings")
    library = folder / "library0"
    build_library_model().save_pretrained(library)
    build_tokenizer().save_pretrained(library)
    first = {"builtin": tiny_model, "library": library}
    return {
        layout: [first[layout], *(sibling(first[layout], folder / f"{layout}{seed}", seed) for seed in (1, 2))]
        for layout in LAYOUTS
    }
