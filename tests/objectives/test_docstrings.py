from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize("module", ["bradley_terry", "distillation", "diversity", "guidance", "optimum"])
def test_docstring_examples_run(module):
    results = doctest.testmod(importlib.import_module(f"qd.objectives.{module}"))
    assert results.attempted > 0
    assert results.failed == 0
