"""Folders that hold no model in safetensors get a sentence of their own, with the way out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from qd.models.checkpoints.foreign import foreign_format
from qd.models.checkpoints.pretrained import check_source
from qd.models.checkpoints.resolver import kind_problems, resolve_model

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 2364430288\n"
CONFIG = json.dumps({"model_type": "musicgen"})


@pytest.mark.parametrize(
    ("files", "facts"),
    [
        (
            {"adapter_config.json": '{"base_model_name_or_path": "a/b"}', "adapter_model.safetensors": ""},
            ["LoRA adapter of 'a/b'", "merge_and_unload", "save_pretrained"],
        ),
        ({"adapter_config.json": "{}", "adapter_model.bin": ""}, ["LoRA adapter", "merge_and_unload"]),
        ({"config.json": CONFIG, "pytorch_model.bin": "x"}, ["pytorch_model.bin", "can run code", "save_pretrained"]),
        ({"config.json": CONFIG, "model.safetensors": POINTER}, ["git-lfs", "model.safetensors", "git lfs pull"]),
        ({"config.json": CONFIG, "pytorch_model.bin": POINTER}, ["git-lfs", "pytorch_model.bin", "git lfs pull"]),
        ({"decoder/model.safetensors": POINTER}, ["git-lfs", "decoder/model.safetensors"]),
        ({"config.json": POINTER}, ["git-lfs", "config.json"]),
        ({"state_dict.bin": "x", "compression_state_dict.bin": "x"}, ["audiocraft", "facebook/musicgen-small"]),
        (
            {"config.json": '{"model_type": "musicgen_melody"}', "model.safetensors": ""},
            ["MusicGen-melody", "melody as input", "facebook/musicgen-small"],
        ),
    ],
)
def test_each_kind_gets_its_own_sentence(files: dict[str, str], facts: list[str], tmp_path: Path):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    readers = [resolve_model, lambda folder: check_source(str(folder))]
    for resolve in readers[:1] if "can run code" in facts else readers:  # transformers reads pickles of tensors only
        with pytest.raises(ValueError) as error:
            resolve(tmp_path)
        assert all(fact in str(error.value) for fact in [str(tmp_path), *facts]), str(error.value)


def test_an_adapter_of_a_run_names_the_folder_above(tiny_model: Path, tmp_path: Path):
    step = shutil.copytree(tiny_model, tmp_path / "step-000500")
    (step / "adapter").mkdir()
    (step / "adapter" / "adapter_config.json").write_text("{}")
    (step / "adapter" / "adapter_model.safetensors").touch()
    with pytest.raises(ValueError, match=rf"LoRA adapter; name the folder above, '{step}'"):
        resolve_model(step / "adapter")
    assert resolve_model(step) == str(step)


def test_complete_folders_are_not_foreign(tiny_model: Path, encodec_checkpoint: Path, tmp_path: Path):
    assert foreign_format(tiny_model) is None and foreign_format(encodec_checkpoint) is None
    # The published folders hold these files besides the weights in safetensors.
    both = shutil.copytree(encodec_checkpoint, tmp_path / "published")
    for name in ("state_dict.bin", "compression_state_dict.bin", "pytorch_model.bin"):
        (both / name).touch()
    assert resolve_model(both) == str(both)


def test_a_hub_model_of_melody_and_a_file_are_named():
    (problem,) = kind_problems({"model_type": "musicgen_melody"})
    assert "MusicGen-melody" in problem and "facebook/musicgen-small" in problem


def test_a_file_is_not_a_folder(tiny_model: Path):
    file = tiny_model / "decoder" / "model.safetensors"
    with pytest.raises(ValueError, match=rf"is a file; name its folder: '{file.parent}'"):
        resolve_model(file)
