"""The user's home folder in paths: some shells do not expand ``~`` in ``DATA=~/music``."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

_HOME = re.compile(r"^~[\w.-]*$|(?:^|(?<=[\s:]))~[\w.-]*(?=/)")
"""``~`` or ``~user``: at the start, or after a kind (``clap:~/model``) or a space (``~/a:0.5 ~/b:0.5``)."""


def expand_home(value: Any) -> Any:
    """Replaces ``~`` by the home folder, in a text, or in each text of a list or a dictionary.

    Example:
        >>> import os
        >>> os.environ["HOME"] = "/home/me"
        >>> expand_home("~/music"), expand_home(["clap:~/model", "a~/b"])
        ('/home/me/music', ['clap:/home/me/model', 'a~/b'])
    """
    if isinstance(value, str):
        return _HOME.sub(lambda match: os.path.expanduser(match[0]), value)
    if isinstance(value, list):
        return [expand_home(element) for element in value]
    if isinstance(value, dict):
        return {key: expand_home(element) for key, element in value.items()}
    return value


def home_path(text: str) -> Path:
    """Returns the path that a text names, with ``~`` replaced by the home folder."""
    return Path(expand_home(text))
