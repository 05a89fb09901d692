"""Optional packages: imported, or named with the command that installs them."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from qd.runs.extras import install_command, require


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "muq", None)
    with pytest.raises(ValueError, match=r"package 'muq'.*pip install -e '\.\[muq\]'"):
        require("muq", "muq")


def test_an_installed_but_broken_package_is_reported_with_the_reason(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("raise OSError('libc10_cuda.so: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"'broken_package'.*'\.\[x\]'.*libc10_cuda.so"):
        require("broken_package", "x")
    monkeypatch.setitem(sys.modules, "intact_package", intact := ModuleType("intact_package"))
    assert require("intact_package", "x") is intact


def test_a_package_outside_the_extras_is_installed_from_the_index():
    assert install_command("wandb") == "pip install wandb"
