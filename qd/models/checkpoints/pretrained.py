"""Other people's models by name: ``kind:<hub name or folder>``, and what to say where one cannot be had."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from huggingface_hub import HfApi, constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import (
    HTTPError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError, safe_open
from torch import nn

from qd.models.checkpoints.json_files import read_object
from qd.models.checkpoints.resolver import HUB_NAME, WEIGHTS

_FILES = ["config.json", WEIGHTS]
"""What is read of a hub repository of a model outside the transformers library."""
_NO_NETWORK = (
    " — without a network, fetch it elsewhere with `hf download <owner/name> --local-dir <folder>` and name that "
    "folder instead"
)


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
        >>> parse_name("clap:runs/my-clap", {}, {"clap": "laion/larger_clap_music"})
        ModelName(kind='clap', source='runs/my-clap')
        >>> parse_name("clap", {}, {"clap": "laion/larger_clap_music"})
        ModelName(kind='clap', source='laion/larger_clap_music')
        >>> parse_name("runs/x", {}, {"clap": "laion/larger_clap_music"})
        ModelName(kind='folder', source='runs/x')
    """
    if name in shipped:
        return ModelName(str(name), shipped[name])
    kind, _, source = str(name).partition(":")
    if kind in kinds and (source or kinds[kind]):
        return ModelName(kind, source or kinds[kind])
    return ModelName(FOLDER, str(name))


def check_source(source: str, model_type: str | None = None) -> str:
    """The source as the libraries take it, looked at but not loaded: a folder must hold a model of that type; whether a
    hub name can be had shows when it is loaded.

    Raises:
        ValueError: the folder does not exist, or holds something else.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        if HUB_NAME.fullmatch(source) and not folder.parent.is_dir():
            return source
        raise ValueError(f"folder {source!r} does not exist; expected a folder or a hub name `owner/name`")
    config = folder / "config.json"
    if not config.is_file():
        raise ValueError(f"folder {source!r} lacks config.json; expected what save_pretrained or `hf download` wrote")
    found = read_object(config).get("model_type")
    if model_type and found != model_type:
        raise ValueError(f"folder {source!r} holds a model of type {found!r}; expected {model_type!r}")
    return str(folder)


def require(module: str, extra: str) -> ModuleType:
    """Imports a module of an optional package.

    Raises:
        ValueError: it cannot be imported; the message names the extra.
    """
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:  # OSError: a compiled part that does not fit this torch
        package = module.partition(".")[0]
        raise ValueError(f"the package {package!r} is needed: pip install 'qd[{extra}]' ({error})") from error


def load_transformers(
    kind: Any,
    source: str,
    local_files_only: bool = False,
    *,
    dtype: torch.dtype = torch.float32,
    trained: bool = False,
    **options: Any,
) -> Any:
    """``kind.from_pretrained(source)``; of a model, which lacks no weight, in eval mode.

    Args:
        kind: a model, tokenizer or feature extractor class of the transformers library.
        source: hub name or folder.
        local_files_only: look in the folder and in the Hugging Face cache alone.
        dtype: of a model's weights.
        trained: whether they are; else they are frozen.
        options: more of ``from_pretrained``: ``revision``, ``use_safetensors``.

    Raises:
        ValueError: it cannot be had, or the weights are another model's.
    """
    source, options = check_source(source), {"local_files_only": local_files_only, **options}
    with _explained(source):
        if not issubclass(kind, nn.Module):
            return kind.from_pretrained(source, **options)
        model, report = kind.from_pretrained(source, dtype=dtype, output_loading_info=True, **options)
    _refuse_missing(report["missing_keys"], source)
    return model.eval().requires_grad_(trained)


def hub_commit(source: str, revision: str | None = None, offline: bool = False) -> str:
    """The commit that a model's name on the hub and a branch or tag stand for now.

    One question, without the library's half a minute of retries where there is no network. A model that has been
    downloaded is found without one.

    Raises:
        ValueError: the hub knows no such model or revision, or it cannot be asked and the model was not downloaded.
    """
    offline = offline or constants.HF_HUB_OFFLINE
    if not offline:
        try:
            return HfApi().model_info(source, revision=revision, timeout=10).sha
        except RepositoryNotFoundError as error:
            raise ValueError(
                f"model {source!r}: the hub has none of that name, or it is private or gated; check the spelling, log "
                "in by `hf auth login`, or name a folder"
            ) from error
        except RevisionNotFoundError as error:
            raise ValueError(f"model {source!r} has no revision {revision!r}; leave it out for the newest") from error
        except (OSError, HTTPError):
            pass  # no network
    try:
        config = hf_hub_download(source, "config.json", revision=revision, local_files_only=True)
    except OSError as error:
        why = "offline was asked for" if offline else "the hub cannot be reached"
        raise ValueError(_not_had(source, f"{why}, and no copy is in its cache")) from error
    return Path(config).parent.name


def hub_options(source: str, offline: bool = False) -> dict[str, Any]:
    """What :func:`load_transformers` is told of each part of a model, so that a hub name is looked up once; of a folder
    nothing.

    Raises:
        ValueError: as :func:`hub_commit`, or there is no such folder.
    """
    if Path(check_source(source)).is_dir():
        return {}
    return {"revision": hub_commit(source, offline=offline), "local_files_only": offline}


def hub_config(source: str, commit: str, offline: bool = False) -> dict[str, Any]:
    """What the ``config.json`` of a model on the hub says, before any weight of it is fetched.

    Raises:
        ValueError: there is none, it cannot be had, or it is damaged.
    """
    try:
        file = hf_hub_download(source, "config.json", revision=commit, local_files_only=offline)
    except RemoteEntryNotFoundError as error:
        raise ValueError(f"model {source!r} has no config.json; expected one of the transformers library") from error
    except (OSError, HTTPError) as error:
        raise ValueError(_not_had(source, str(error).strip().splitlines()[0])) from error
    return read_object(Path(file))


def hub_folder(source: str, revision: str | None, patterns: list[str]) -> Path:
    """A model of the hub as a folder, downloaded if it is not there already.

    Raises:
        ValueError: as :func:`hub_commit`, or the download fails.
    """
    commit = hub_commit(source, revision)
    try:
        return Path(snapshot_download(source, revision=commit, allow_patterns=patterns))
    except (OSError, HTTPError) as error:
        raise ValueError(_not_had(source, str(error).strip().splitlines()[0])) from error


def _not_had(source: str, why: str) -> str:
    return (
        f"model {source!r} cannot be loaded: {why}. Fetch it where there is a network, `hf download {source} "
        "--local-dir <folder>`, and name that folder instead: model.name=<folder> (in other commands, MODEL=<folder>), "
        "or <kind>:<folder> of an embedder or a scorer"
    )


def load_hub_mixin(kind: Any, source: str) -> Any:
    """``kind.from_pretrained`` for a model of ``huggingface_hub.PyTorchModelHubMixin``, which draws weights at random
    without a word where they are missing; frozen and in eval mode.

    Raises:
        ValueError: it cannot be had, or a weight or the file of them is missing.
    """
    folder = Path(check_source(source))
    if not folder.is_dir():
        folder = hub_folder(source, None, _FILES)
    if not (folder / WEIGHTS).is_file():
        raise ValueError(
            f"{source!r} lacks {WEIGHTS}; expected what save_pretrained wrote: pickled weights are not read"
        )
    with _explained(source):
        model = kind.from_pretrained(str(folder))
    with safe_open(folder / WEIGHTS, framework="pt") as file:
        _refuse_missing(model.state_dict().keys() - set(file.keys()), source)
    return model.float().eval().requires_grad_(False)


@contextmanager
def _explained(source: str) -> Iterator[None]:
    """Turns what the libraries raise for a model that cannot be had into one ``ValueError``."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, SafetensorError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        hint = "" if Path(source).is_dir() else _NO_NETWORK
        raise ValueError(f"{source!r} cannot be loaded: {reason}{hint}") from error


def _refuse_missing(keys: Iterable[str], source: str) -> None:
    if missing := sorted(keys):
        raise ValueError(f"{source!r} lacks {len(missing)} weights of this model, {missing[0]} among them")
