"""Loads third-party models by name (``kind:<hub name or folder>``), with clear errors if that fails."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    HTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from torch import nn
from transformers import dynamic_module_utils

from qd.models.checkpoints.foreign import foreign_format
from qd.models.checkpoints.json_files import read_object, shard_names
from qd.models.checkpoints.resolver import HUB_NAME, INDEX, WEIGHTS
from qd.models.checkpoints.sizes import check_size, stored_shapes
from qd.schema.paths import home_path

_FILES = ["config.json", WEIGHTS]  # of a hub model outside the transformers library
_NO_NETWORK = (
    " — without a network, download it elsewhere with `hf download <owner/name> --local-dir <folder>` and name that "
    "folder instead"
)


dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0
"""The library does not ask on standard input whether it may run code that comes with a model; it refuses."""

FOLDER = "folder"
"""Kind of a name that is neither a shipped model nor ``kind:source``."""


class ModelName(NamedTuple):
    """Name of a scorer or an embedder in a config, parsed once.

    Attributes:
        kind: A shipped name such as ``builtin``, a kind such as ``clap``, or :data:`FOLDER`.
        source: Asset of a shipped name; else a hub name, a file or a folder.
    """

    kind: str
    source: str


def parse_name(name: str | Path, shipped: Mapping[str, str], kinds: Mapping[str, str]) -> ModelName:
    """Splits ``builtin``, ``kind``, ``kind:source`` or a folder into kind and source.

    Args:
        name: Name as a config holds it.
        shipped: Asset of each shipped name.
        kinds: Default source of each kind; "" where a source is required.

    Example:
        >>> parse_name("builtin", {"builtin": "embedder"}, {})
        ModelName(kind='builtin', source='embedder')
    """
    if name in shipped:
        return ModelName(str(name), shipped[name])
    kind, _, source = str(name).partition(":")
    if kind in kinds and (source or kinds[kind]):
        return ModelName(kind, source or kinds[kind])
    return ModelName(FOLDER, str(name))


def check_source(source: str, model_type: str | None = None) -> str:
    """Checks a source without loading it, and returns it in the form that the libraries accept.

    A folder must hold a model of the given type. A hub name is not checked before it is loaded.

    Raises:
        ValueError: the folder does not exist, or holds something else.
    """
    folder = home_path(source)
    if not folder.is_dir():
        if HUB_NAME.fullmatch(source) and not folder.parent.is_dir():
            return source
        raise ValueError(f"folder {source!r} does not exist; expected a folder or a hub name `owner/name`")
    if foreign := foreign_format(folder, pickled=True):
        raise ValueError(f"folder {source!r} {foreign}")
    config = folder / "config.json"
    if not config.is_file():
        raise ValueError(f"folder {source!r} lacks config.json; expected what save_pretrained or `hf download` wrote")
    for index in folder.glob(f"*{INDEX}"):
        shard_names(index)
    actual = read_object(config).get("model_type")
    if model_type and actual != model_type:
        raise ValueError(f"folder {source!r} holds a model of type {actual!r}; expected {model_type!r}")
    return str(folder)


def load_transformers(
    kind: Any,
    source: str,
    local_files_only: bool = False,
    *,
    dtype: torch.dtype = torch.float32,
    trained: bool = False,
    **options: Any,
) -> Any:
    """Calls ``kind.from_pretrained(source)``; a model is checked for missing weights and put into eval mode.

    Args:
        kind: Model, tokenizer or feature extractor class of the transformers library.
        source: Hub name or folder.
        local_files_only: Use only the folder and the Hugging Face cache.
        dtype: Type of a model's weights.
        trained: Whether the weights are trained; otherwise they are frozen.
        options: Further options of ``from_pretrained``: ``revision``, ``use_safetensors``.

    Raises:
        ValueError: the source cannot be loaded, or its weights belong to another model.
    """
    source, options = (
        check_source(source),
        {"local_files_only": local_files_only, "trust_remote_code": False, **options},
    )
    with _explained(source):
        if not issubclass(kind, nn.Module):
            return kind.from_pretrained(source, **options)
        check_size(kind, source, **options)
        model, report = kind.from_pretrained(source, dtype=dtype, output_loading_info=True, **options)
    _refuse_missing(report["missing_keys"], source)
    return model.eval().requires_grad_(trained)


def hub_commit(source: str, revision: str | None = None, offline: bool = False) -> str:
    """Returns the current commit of a model on the hub, for a branch, a tag or the main branch.

    It makes one request, without the library's retries of half a minute if there is no network. Without a network, the
    downloaded model is used.

    Raises:
        ValueError: the hub has no such model or revision, or the hub cannot be reached and the model is not downloaded.
    """
    offline = offline or constants.HF_HUB_OFFLINE
    if not offline:
        try:
            return HfApi().model_info(source, revision=revision, timeout=10).sha
        except RepositoryNotFoundError as error:
            raise ValueError(
                f"model {source!r}: the hub has no such model, or it is private or gated; check the spelling, log in "
                "with `hf auth login`, or name a folder"
            ) from error
        except RevisionNotFoundError as error:
            raise ValueError(f"model {source!r} has no revision {revision!r}; omit it for the newest one") from error
        except (OSError, HTTPError):
            pass  # no network
    try:
        config = hf_hub_download(source, "config.json", revision=revision, local_files_only=True)
    except OSError as error:
        reason = "offline mode is on" if offline else "the hub cannot be reached"
        raise ValueError(_unavailable(source, f"{reason}, and the cache has no copy")) from error
    return Path(config).parent.name


def hub_options(source: str, offline: bool = False) -> dict[str, Any]:
    """Returns the options of :func:`load_transformers` for all parts of a hub model, looked up once; none for a folder.

    Raises:
        ValueError: :func:`hub_commit` fails, or the folder does not exist.
    """
    if Path(check_source(source)).is_dir():
        return {}
    return {"revision": hub_commit(source, offline=offline), "local_files_only": offline}


def hub_config(source: str, commit: str, offline: bool = False) -> dict[str, Any]:
    """Returns the ``config.json`` of a model on the hub, without downloading the weights.

    Raises:
        ValueError: the file does not exist, cannot be downloaded, or is damaged.
    """
    try:
        file = hf_hub_download(source, "config.json", revision=commit, local_files_only=offline)
    except RemoteEntryNotFoundError as error:
        raise ValueError(
            f"model {source!r} has no config.json; expected a model of the transformers library, not a LoRA adapter "
            "or a checkpoint of audiocraft"
        ) from error
    except (OSError, HTTPError) as error:
        raise ValueError(_unavailable(source, str(error).strip().splitlines()[0])) from error
    return read_object(Path(file))


def hub_folder(source: str, revision: str | None, patterns: list[str]) -> Path:
    """Returns the folder of a hub model, which is downloaded unless it is cached.

    Raises:
        ValueError: :func:`hub_commit` or the download fails.
    """
    commit = hub_commit(source, revision)
    try:
        return Path(snapshot_download(source, revision=commit, allow_patterns=patterns))
    except (OSError, HTTPError) as error:
        raise ValueError(_unavailable(source, str(error).strip().splitlines()[0])) from error


def _unavailable(source: str, reason: str) -> str:
    return (
        f"model {source!r} cannot be loaded: {reason}. Download it on a machine with a network, `hf download {source} "
        "--local-dir <folder>`, and name that folder instead: model.name=<folder> (in other commands, MODEL=<folder>), "
        "or <kind>:<folder> for an embedder or a scorer"
    )


def load_hub_mixin(kind: Any, source: str) -> Any:
    """Loads a model of type ``huggingface_hub.PyTorchModelHubMixin``, frozen and in eval mode.

    The mixin initialises missing weights at random without a warning, so this function checks for missing weights.

    Raises:
        ValueError: the model cannot be loaded, or a weight or the weights file is missing.
    """
    folder = Path(check_source(source))
    if not folder.is_dir():
        folder = hub_folder(source, None, _FILES)
    if not (folder / WEIGHTS).is_file():
        raise ValueError(
            f"{source!r} lacks {WEIGHTS}; expected the output of save_pretrained: pickled weights are not read"
        )
    with _explained(source):
        model = kind.from_pretrained(str(folder))
    _refuse_missing(model.state_dict().keys() - stored_shapes(folder / WEIGHTS).keys(), source)
    return model.float().eval().requires_grad_(False)


@contextmanager
def _explained(source: str) -> Iterator[None]:
    """Converts the libraries' errors for a model that cannot be loaded into one ``ValueError``."""
    try:
        yield
    except Exception as error:  # the files may be hostile, and the libraries raise errors of any kind for them
        reason = _reason(error)
        if "custom code" in reason or "trust_remote_code" in reason:
            reason = "it needs code that comes with it, which is never run; name a model that the library itself knows"
        hint = "" if Path(source).is_dir() else _NO_NETWORK
        raise ValueError(f"{source!r} cannot be loaded: {reason}{hint}") from error


def _reason(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    if not lines or isinstance(error, KeyError):
        return f"a file in it is damaged or incomplete ({type(error).__name__} {error})"
    return " ".join(map(str.strip, lines[: 1 + lines[0].endswith(":")]))


def _refuse_missing(keys: Iterable[str], source: str) -> None:
    if missing := sorted(keys):
        raise ValueError(
            f"{source!r} lacks {len(missing)} weights of this model, for example {missing[0]}; download it again"
        )
