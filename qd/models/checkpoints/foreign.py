"""Recognises folders that hold something else than a model of the transformers library, and says what to do."""

from __future__ import annotations

from pathlib import Path

from qd.models.checkpoints.json_files import read_object
from qd.runs.git_lfs import is_lfs_pointer

MELODY = (
    "MusicGen-melody, which also takes a melody as input and is not supported; use facebook/musicgen-small, -medium, "
    "-large, or their stereo versions"
)
AUDIOCRAFT = ("state_dict.bin", "compression_state_dict.bin")
PARTS = ("", "decoder", "text_encoder", "codec")
"""Folders of a checkpoint that hold files; "" is the checkpoint itself."""
LFS_FILES = ("*.safetensors", "*.bin", "*.json", "*.model")
PICKLED = ("*.bin", "*.pt", "*.pth")


def foreign_format(folder: Path, pickled: bool = False) -> str | None:
    """Returns the predicate of a folder that holds no model, such as "holds only a LoRA adapter …"; else None.

    Args:
        folder: Folder of a model.
        pickled: Whether its loader reads pickled weights, which the library restricts to tensors.

    Raises:
        ValueError: A config is damaged.
    """
    if pointers := [str(file.relative_to(folder)) for file in _files(folder, LFS_FILES) if is_lfs_pointer(file)]:
        return (
            f"holds git-lfs pointers instead of files ({', '.join(pointers[:3])}); run `git lfs pull` in it, or "
            "download it again with `hf download`"
        )
    if _model_type(folder) == "musicgen_melody":
        return f"holds {MELODY}"
    if any(_files(folder, ("*.safetensors",))) and not (folder / "adapter_config.json").is_file():
        return None
    if (folder / "adapter_config.json").is_file() and not any(folder.glob("model*.safetensors")):
        return _adapter(folder)
    if any((folder / name).is_file() for name in AUDIOCRAFT):
        return (
            f"holds a checkpoint of audiocraft ({', '.join(AUDIOCRAFT)}), which is not read; use the same model in the "
            "format of the transformers library, such as facebook/musicgen-small, or convert it with the library's "
            "convert_musicgen_transformers.py"
        )
    if not pickled and (files := _files(folder, PICKLED)):
        return (
            f"holds pickled weights ({files[0].name}), which are not read, because such a file can run code; save it "
            "as safetensors where you trust it: from_pretrained(<folder>).save_pretrained(<new folder>), or "
            "download the model's .safetensors files"
        )
    return None


def _adapter(folder: Path) -> str:
    if (folder.parent / "config.json").is_file() or (folder.parent / "decoder").is_dir():
        return f"holds only a LoRA adapter; name the folder above, '{folder.parent}', whose weights include it"
    base = read_object(folder / "adapter_config.json").get("base_model_name_or_path")
    return (
        f"holds only a LoRA adapter{f' of {base!r}' if base else ''}; merge it into its model with the library peft: "
        "PeftModel.from_pretrained(<model>, <adapter>).merge_and_unload().save_pretrained(<new folder>), and name that "
        "folder"
    )


def _model_type(folder: Path) -> object:
    config = folder / "config.json"
    return read_object(config).get("model_type") if config.is_file() else None


def _files(folder: Path, patterns: tuple[str, ...]) -> list[Path]:
    found = (path for part in PARTS for pattern in patterns for path in (folder / part).glob(pattern))
    return sorted(path for path in found if path.is_file())
