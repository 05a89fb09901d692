"""Resolves model names for every command: a shipped model, a run, a step, a folder or a hub name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from qd.models.checkpoints.foreign import MELODY, foreign_format
from qd.models.checkpoints.json_files import read_object, shard_names
from qd.models.checkpoints.weight_delta import DELTA_FILE, restore_checkpoint
from qd.schema.paths import home_path

ASSETS = Path(__file__).resolve().parents[2] / "builtin" / "assets"
ASSET_KINDS = ("embedder", "embedder_heldout", "adherence", "preference")
FINETUNED = ("beta0", "beta15")
"""Shipped models that are finetuned from the base: by distillation only, and with the diversity reward."""

SHIPPED = ("base", *FINETUNED)
"""Names of the shipped models; a folder with such a name must be written as ``./beta0`` or ``runs/beta0``."""

WEIGHTS = "model.safetensors"
INDEX = ".index.json"
"""Suffix of the index file that assigns tensors to shards, if there are several."""

PARTS = ("decoder", "text_encoder", "codec")
"""Folders of a checkpoint in the built-in layout."""

PROJECTION = "projection.safetensors"
"""File next to these folders, if decoder and text encoder have different widths."""

HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
"""``owner/name``."""
_PINNED = re.compile(rf"({HUB_NAME.pattern})(?:@(\w[\w./-]*))?")
_STEP = re.compile(r"step-(\d{6,})")


def resolve_model(name: str | Path) -> str:
    """Resolves a model name to the folder with its weights, or to its hub name.

    Args:
        name: ``base`` (the built-in model), ``beta0`` or ``beta15`` (finetuned from it), a checkpoint folder, a run
            folder such as ``runs/x`` (its newest ``step-*`` is used), or a hub name ``owner/name``, optionally with a
            revision (``owner/name@v1``). A hub name is returned unchanged; see :func:`hub_name`.

    Raises:
        ValueError: the name is none of these, or the folder is not a complete checkpoint.
    """
    if str(name) == "base":
        return str(_checked(ASSETS / "base", "run `make base` to build it"))
    if str(name) in FINETUNED:
        return str(_checked(_restored(str(name)), "remove that folder; it is then created again"))
    folder = home_path(str(name))
    if folder.is_file():
        raise ValueError(f"model '{name}' is a file; name its folder: '{folder.parent}'")
    if str(name) and folder.is_dir():
        return str(_checked([folder, *step_folders(folder)][-1], "name a checkpoint, or a run with a finished step"))
    if hub := _PINNED.fullmatch(str(name)):
        owner = Path(hub[1]).parent
        if not owner.is_dir() and owner.name != "runs":
            return str(name)
    raise ValueError(
        f"model '{name}': no such folder{_nearest(folder)}. Expected `base`, `beta0`, `beta15`, a checkpoint "
        "folder, a run such as `runs/x` or a hub name `owner/name` or `owner/name@revision`."
    )


def hub_name(name: str, revision: str | None = None) -> tuple[str, str | None]:
    """Splits a hub name into the name and its revision: a branch, a tag or a commit; None is the newest.

    Raises:
        ValueError: both ``name`` and ``revision`` give a revision.

    Example:
        >>> hub_name("facebook/musicgen-small@v1"), hub_name("facebook/musicgen-small")
        (('facebook/musicgen-small', 'v1'), ('facebook/musicgen-small', None))
    """
    name, _, suffix = name.partition("@")
    if suffix and revision:
        raise ValueError(f"model '{name}' has two revisions, '{suffix}' in its name and '{revision}'; give only one")
    return name, suffix or revision


def resolve_asset(kind: str) -> str:
    """Returns the folder of a shipped embedder or scorer.

    Raises:
        ValueError: ``kind`` is not one of ``ASSET_KINDS``, or its folder is incomplete.
    """
    if kind not in ASSET_KINDS:
        raise ValueError(f"built-in asset '{kind}' is unknown; expected one of {', '.join(ASSET_KINDS)}.")
    folder = ASSETS / kind
    _raise_if(_model_problems(folder), folder, "run `make base` to build it")
    return str(folder)


def step_folder(run: Path, step: int) -> Path:
    """Returns the folder of a run for the weights of a step: ``step-000500``."""
    return run / f"step-{step:06d}"


def step_folders(run: Path) -> list[Path]:
    """Returns the step folders of a run, the newest last."""
    steps = [(int(match[1]), path) for path in run.iterdir() if (match := _STEP.fullmatch(path.name)) and path.is_dir()]
    return [path for _, path in sorted(steps)]


def weight_files(folder: Path) -> list[Path]:
    """Returns the paths of a model's weight files, existing or not: one file, or the shards that its index names.

    Raises:
        ValueError: the index is damaged, or names a file outside the folder.
    """
    index = folder / f"{WEIGHTS}{INDEX}"
    if index.is_file() and not (folder / WEIGHTS).is_file():
        return [folder / shard for shard in shard_names(index)]
    return [folder / WEIGHTS]


def checkpoint_problems(folder: Path) -> list[str]:
    """Returns why a folder is not a complete MusicGen checkpoint, one text per problem; empty if it is complete.

    There are two layouts: the built-in one (``decoder/``, ``text_encoder/``, ``codec/``), and the library's single
    folder (``config.json`` of model type "musicgen", safetensors files, tokenizer files). Only headers are read.

    Raises:
        ValueError: a config or an index of weights is damaged.
    """
    folder = Path(folder)
    if not (folder / "decoder").is_dir():
        problems = _model_problems(folder) + _tokenizer_problems(folder)
        return problems + kind_problems(_read_json(folder / "config.json"))
    problems = [f"{part}/{problem}" for part in PARTS for problem in _model_problems(folder / part)]
    problems += [f"text_encoder/{problem}" for problem in _tokenizer_problems(folder / "text_encoder")]
    widths = _width(folder / "decoder", "hidden_size"), _width(folder / "text_encoder", "d_model")
    if None not in widths and widths[0] != widths[1]:
        problems += _weight_file_problems(folder / PROJECTION)
    return problems


def kind_problems(config: Mapping[str, Any]) -> list[str]:
    """Returns the problem with the model type in a ``config.json``; empty if it is MusicGen."""
    kind = config.get("model_type", "musicgen")
    if kind == "musicgen_melody":
        return [f"it is {MELODY}"]
    return [] if kind == "musicgen" else [f"config.json has model_type '{kind}', expected 'musicgen'"]


def shipped_folder(name: str) -> Path:
    """Returns the folder of a shipped finetuned model, existing or not.

    See :mod:`qd.models.checkpoints.weight_delta`.
    """
    return ASSETS / "finetuned" / name


def _restored(name: str) -> Path:
    asset = shipped_folder(name)
    if not (asset / DELTA_FILE).is_file():
        raise ValueError(
            f"model '{name}' is not shipped with this version: '{asset}' is missing. Ship one of your runs under that "
            f"name (make ship MODEL=runs/<run> NAME={name}), or name a folder: runs/<run>, ./{name}."
        )
    return restore_checkpoint(asset, Path(resolve_model("base")))


def _checked(folder: Path, fix: str) -> Path:
    if foreign := foreign_format(folder):
        raise ValueError(f"model folder '{folder}' {foreign}")
    _raise_if(checkpoint_problems(folder), folder, fix)
    return folder


def _raise_if(problems: list[str], folder: Path, fix: str) -> None:
    if problems:
        raise ValueError(f"checkpoint folder '{folder}' is incomplete: {'; '.join(problems)}. To fix it, {fix}.")


def _model_problems(folder: Path) -> list[str]:
    """Returns problems of one model: a missing config, and missing or damaged weight files or shards."""
    problems = [] if (folder / "config.json").is_file() else ["config.json is missing"]
    files = weight_files(folder)
    if not files:
        problems.append(f"{WEIGHTS}{INDEX} names no weight file")
    return problems + [problem for file in files for problem in _weight_file_problems(file)]


def _weight_file_problems(path: Path) -> list[str]:
    if not path.is_file():
        return [f"{path.name} is missing"]
    try:
        # Opening the file compares the header with the file size, which detects interrupted downloads.
        with safe_open(path, framework="pt"):
            return []
    except SafetensorError as error:
        return [f"{path.name} is damaged ({error})"]


def _tokenizer_problems(folder: Path) -> list[str]:
    vocabulary = any((folder / file).is_file() for file in ("tokenizer.json", "spiece.model"))
    problems = [] if vocabulary else ["tokenizer.json is missing"]
    return problems + ([] if (folder / "tokenizer_config.json").is_file() else ["tokenizer_config.json is missing"])


def _width(folder: Path, key: str) -> int | None:
    return _read_json(folder / "config.json").get(key)


def _read_json(path: Path) -> dict:
    return read_object(path) if path.is_file() else {}


def _nearest(folder: Path) -> str:
    siblings = [path.name for path in folder.parent.iterdir() if path.is_dir()] if folder.parent.is_dir() else []
    matches = difflib.get_close_matches(folder.name, siblings, n=1)
    return f"; did you mean '{folder.parent / matches[0]}'?" if matches else ""
