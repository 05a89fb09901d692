"""Where the numbers of a run go: TensorBoard, or any other of Lightning's loggers, or several.

All get scalars and hyperparameters. Figures, audio and projections are TensorBoard's; the Pareto figure is also a file.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import (
    CometLogger,
    CSVLogger,
    LitLogger,
    Logger,
    MLFlowLogger,
    TensorBoardLogger,
    WandbLogger,
)
from torch.utils.tensorboard import SummaryWriter

from qd.config_checks import one_of

LOGGERS: dict[str, type[Logger]] = {
    "tensorboard": TensorBoardLogger,
    "csv": CSVLogger,
    "wandb": WandbLogger,
    "mlflow": MLFlowLogger,
    "comet": CometLogger,
    "litlogger": LitLogger,
}
PACKAGES = {"wandb": "wandb", "mlflow": "mlflow", "comet": "comet_ml", "litlogger": "litlogger"}
"""Modules that are not installed with this project; a service's client is large, and nobody needs them all."""
_SECRET = re.compile("api_?key|token|secret|password", re.IGNORECASE)


def logger_problems(path: str, loggers: Sequence[str], options: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """One sentence for each unknown or missing logger, and for each option that a logger does not take.

    Args:
        path: of the settings' group, ``trainer``.
        loggers: names. options: of each.
    """
    for name in loggers:
        yield from one_of(f"{path}.loggers", name, LOGGERS)
        if (package := PACKAGES.get(name)) and find_spec(package) is None:
            yield f"{path}.loggers: {name!r} needs a package; pip install {package.replace('_', '-')}"
    for name, given in options.items():
        # A run's config is written into the cards of its models, which are made to be published.
        for option in filter(_SECRET.search, given):
            yield f"{path}.logger_options.{name}.{option} is a secret; give it by the environment, as {name} documents"
        if name not in loggers:
            yield f"{path}.logger_options.{name} is given, and {path}.loggers has no {name!r}; add it or leave that out"
        elif name in LOGGERS and (known := _known_options(name)):
            for option in given:
                if option not in known:
                    nearest = get_close_matches(option, known, n=1)
                    told = f"{nearest[0]}?" if nearest else f"expected one of {', '.join(known)}"
                    yield f"{path}.logger_options.{name}.{option} is unknown; {told}"


def build_loggers(
    loggers: Sequence[str], options: Mapping[str, Mapping[str, Any]], folder: Path, resumed_at: int | None = None
) -> list[Logger]:
    """The loggers of a run.

    Args:
        loggers: names of :data:`LOGGERS`.
        options: of each, keyword arguments of Lightning's logger.
        folder: of the run, whose name they take.
        resumed_at: the step that a run goes on from.
    """
    return [LOGGERS[name](**{**_settings(name, folder, resumed_at), **options.get(name, {})}) for name in loggers]


def _settings(name: str, folder: Path, resumed_at: int | None) -> dict[str, Any]:
    """What a logger is told if its options do not say otherwise."""
    if name == "tensorboard":
        # What a killed run has logged beyond its checkpoint is hidden: those steps are made again.
        purge = {} if resumed_at is None else {"purge_step": resumed_at + 1}
        return {"save_dir": folder, "name": "", "version": "", "default_hp_metric": False, **purge}
    if name == "csv":
        # A version each time the run starts: Lightning would delete the rows of before. And no row waits in memory.
        return {"save_dir": folder, "name": "csv", "flush_logs_every_n_steps": 1}
    if name == "wandb":
        return {"name": folder.name, "project": "qd", "save_dir": folder, "id": _earlier_wandb_run(folder)}
    if name == "mlflow":
        return {"run_name": folder.name, "experiment_name": "qd", "save_dir": str(folder.parent / "mlruns")}
    if name == "comet":
        return {"project": "qd", "name": folder.name, "offline_directory": str(folder)}
    return {"root_dir": folder, "name": folder.name}


def _earlier_wandb_run(folder: Path) -> str | None:
    """The id of the run that is to go on, by the newest folder that wandb has left: ``run-<time>-<id>``."""
    runs = sorted(path.name.rsplit("-", 2)[1:] for path in (folder / "wandb").glob("*run-*-*"))
    return runs[-1][1] if runs else None


def _known_options(name: str) -> list[str]:
    """The options that a logger takes; none where it hands what it does not know to a package that may be missing."""
    parameters = inspect.signature(LOGGERS[name].__init__).parameters
    known = (
        [*parameters, *inspect.signature(SummaryWriter.__init__).parameters] if name == "tensorboard" else parameters
    )
    passed_on = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return [] if passed_on and name != "tensorboard" else [key for key in known if key not in ("self", "kwargs")]
