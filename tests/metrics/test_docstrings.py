from __future__ import annotations

import doctest
import importlib

import pytest

MODULES = ("bootstrap", "diversity", "facets", "formatting", "frechet", "kernel", "pareto", "preference", "vendi")


@pytest.mark.parametrize("module", MODULES)
def test_docstring_examples_run(module):
    results = doctest.testmod(importlib.import_module(f"qd.metrics.{module}"))
    assert results.attempted > 0
    assert results.failed == 0
