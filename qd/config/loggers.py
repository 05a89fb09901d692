"""Checks of the loggers of a config, and of their options."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from importlib.util import find_spec
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from qd.runs.extras import install_command
from qd.runs.loggers import LOGGERS, PACKAGES

_SECRET = re.compile("api_?key|token|secret|password", re.IGNORECASE)


def logger_problems(group: str, loggers: Sequence[str], options: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """One sentence for each logger whose package is missing, and for each unknown option.

    Args:
        group: Dotted path of the group of settings: "trainer".
        loggers: Names of loggers.
        options: Options of each, by its name.
    """
    for name in loggers:
        if (package := PACKAGES.get(name)) and find_spec(package) is None:
            yield f"{group}.loggers: {name!r} needs a package; {install_command(package)}"
    for name, values in options.items():
        path = f"{group}.logger_options.{name}"
        # The config of a run is written into the cards of its models, which are made for publication.
        for option in filter(_SECRET.search, values):
            yield f"{path}.{option} is a secret; set it in the environment, as {name} documents"
        if name not in loggers:
            yield f"{path} is set, but {group}.loggers has no {name!r}; add it or remove the options"
        elif name in LOGGERS and (known := _known_options(name)):
            for option in values:
                if option not in known:
                    nearest = get_close_matches(option, known, n=1)
                    hint = f"did you mean {nearest[0]!r}?" if nearest else f"expected one of {', '.join(known)}"
                    yield f"{path}.{option} is unknown; {hint}"


def _known_options(name: str) -> list[str]:
    """The options of a logger; empty if it passes unknown ones to a package that may be missing."""
    parameters = inspect.signature(LOGGERS[name].__init__).parameters
    known = (
        [*parameters, *inspect.signature(SummaryWriter.__init__).parameters] if name == "tensorboard" else parameters
    )
    passed_on = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return [] if passed_on and name != "tensorboard" else [key for key in known if key not in ("self", "kwargs")]
