"""The problems that loading a config reports."""

from __future__ import annotations

import pytest

from qd.config.loading import ConfigError, load_config


def problems_of(*arguments) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(*arguments)
    return caught.value.problems
