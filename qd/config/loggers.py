"""Checks of the loggers that a config names, and of their options."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from importlib.util import find_spec
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from qd.config.checks import one_of
from qd.runs.loggers import LOGGERS, PACKAGES

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
            yield f"{path}.loggers: {name!r} needs a package; pip install {package}"
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


def _known_options(name: str) -> list[str]:
    """The options that a logger takes; none where it hands what it does not know to a package that may be missing."""
    parameters = inspect.signature(LOGGERS[name].__init__).parameters
    known = (
        [*parameters, *inspect.signature(SummaryWriter.__init__).parameters] if name == "tensorboard" else parameters
    )
    passed_on = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return [] if passed_on and name != "tensorboard" else [key for key in known if key not in ("self", "kwargs")]
