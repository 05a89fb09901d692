"""Checkpoints: how many steps they have, and that every kind of damage is named."""

from __future__ import annotations

import errno
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from qd.runs.checkpoints import (
    AtomicCheckpoints,
    DamagedCheckpointError,
    check_checkpoint,
    checkpoint_step,
    newest_checkpoint,
)
from tests.runs.full_disk import full_disk

MODULE = nn.Linear(64, 64)


def content() -> dict:
    """What Lightning saves."""
    optimizer = torch.optim.AdamW(MODULE.parameters())
    MODULE(torch.ones(1, 64)).sum().backward()
    optimizer.step()
    parts = {"loops": {}, "callbacks": {}, "lr_schedulers": [], "optimizer_states": [optimizer.state_dict()]}
    return {"global_step": 7, "state_dict": MODULE.state_dict(), **parts}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.save(content(), tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


def changed(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def damage(file: Path) -> None:
        saved = content()
        change(saved)
        torch.save(saved, file)

    return damage


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file: Path) -> None:
    """Changes one byte of a tensor."""
    data = bytearray(file.read_bytes())
    weight = MODULE.weight.detach().numpy().tobytes()
    data[data.index(weight) + 100] ^= 1
    file.write_bytes(data)


def pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


DAMAGES = {
    "cut": (cut, "is cut, or no checkpoint"),
    "empty": (lambda file: file.write_bytes(b""), "is empty"),
    "text": (lambda file: file.write_text("hello\n"), "is cut, or no checkpoint"),
    "pickle": (lambda file: file.write_bytes(pickle.dumps({"global_step": 1})), "is cut, or no checkpoint"),
    "missing": (Path.unlink, "is missing"),
    "folder": (folder, "is a folder"),
    "pipe": (pipe, "is a device or a pipe"),
    "one byte": (flip, "checksum"),
    "a tensor": (lambda file: torch.save(torch.ones(2), file), "Tensor"),
    "no step": (changed(lambda saved: saved.pop("global_step")), "global_step"),
    "no optimiser": (changed(lambda saved: saved.pop("optimizer_states")), "optimizer_states"),
    "tensor missing": (changed(lambda saved: saved["state_dict"].pop("bias")), "'bias'"),
    "tensor unknown": (changed(lambda saved: saved["state_dict"].update(b=torch.ones(1))), "'b'"),
    "tensor shape": (
        changed(lambda saved: saved["state_dict"].update(bias=torch.ones(3))),
        r"\(3,\); expected \(64,\)",
    ),
    "moments missing": (changed(lambda saved: saved["optimizer_states"][0]["state"].pop(1)), "1 of 2 tensors"),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_each_damage_is_named_in_one_line(file: Path, name: str) -> None:
    assert check_checkpoint(file, MODULE) == 7
    damage, fact = DAMAGES[name]
    damage(file)
    with pytest.raises(DamagedCheckpointError, match=fact) as caught:
        check_checkpoint(file, MODULE)
    assert repr(str(file)) in str(caught.value) and "\n" not in str(caught.value)


def test_a_checkpoint_of_step_0_has_no_moments(tmp_path: Path) -> None:
    saved = content() | {"global_step": 0, "optimizer_states": [torch.optim.AdamW(MODULE.parameters()).state_dict()]}
    torch.save(saved, tmp_path / "last.ckpt")
    assert check_checkpoint(tmp_path / "last.ckpt", MODULE) == 0


def test_the_step_is_read_without_the_module(file: Path) -> None:
    assert checkpoint_step(file) == 7


def test_a_run_without_a_checkpoint_has_none(file: Path) -> None:
    assert newest_checkpoint(file.parent) == file
    folder(file)  # anything of that name counts, and is then named as damaged
    assert newest_checkpoint(file.parent) == file
    file.rmdir()
    assert newest_checkpoint(file.parent) is None


def test_a_full_disk_is_called_so_and_leaves_the_old_checkpoint(file: Path) -> None:
    before = file.read_bytes()
    with full_disk(1000), pytest.raises(OSError) as caught:
        AtomicCheckpoints().save_checkpoint(content(), file)
    assert (caught.value.errno, caught.value.filename) == (errno.EFBIG, str(file))
    assert file.read_bytes() == before and list(file.parent.iterdir()) == [file]
