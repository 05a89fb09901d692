"""Requests for a merge: refused ones, hub models, copied files, and no files left after an error."""

from __future__ import annotations

import shutil
import socket
from types import SimpleNamespace

import pytest
import yaml

from qd.commands.merge import merge
from qd.models.checkpoints import pretrained
from qd.models.merging import writer
from tests.models.merging.conftest import halved, rewrite, sibling


def test_a_weight_that_is_not_finite_leaves_no_files(siblings, tmp_path):
    a, b, _ = siblings["builtin"]
    broken = sibling(b, tmp_path / "broken", 3)
    rewrite(broken, lambda path, tensor: tensor / 0 if path.endswith("lm_heads.2.weight") else tensor)
    with pytest.raises(ValueError, match=f"decoder/lm_heads.2.weight: not finite in {broken}.*earlier step"):
        merge(str(a), str(broken), out=tmp_path / "out" / "merged")
    assert list((tmp_path / "out").iterdir()) == []


def test_an_extrapolation_that_overflows_half_precision_is_refused(siblings, tmp_path):
    a, b = (halved(folder, tmp_path / folder.name) for folder in siblings["builtin"][:2])
    rewrite(b, lambda path, tensor: tensor * 1000 if path.endswith("lm_heads.2.weight") else tensor)
    with pytest.raises(ValueError, match="lm_heads.2.weight: .*too large for torch.float16"):
        merge(str(a), str(b), lam=400, extrapolate=True, out=tmp_path / "merged")


def test_an_interrupted_merge_leaves_no_files_and_leftovers_do_not_matter(siblings, tmp_path, monkeypatch):
    a, b, _ = siblings["builtin"]
    leftover = tmp_path / f".merged.{socket.gethostname()}-99999999.tmp" / "decoder"  # of a process that ended
    leftover.mkdir(parents=True)
    (leftover / "stray").touch()

    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(writer, "weighted_sum", interrupted)
        with pytest.raises(KeyboardInterrupt):
            merge(str(a), str(b), out=tmp_path / "merged")
    assert list(tmp_path.iterdir()) == []
    leftover.mkdir(parents=True)
    (leftover / "stray").touch()
    out = merge(str(a), str(b), out=tmp_path / "merged")
    assert list(tmp_path.iterdir()) == [out] and not (out / "decoder" / "stray").exists()


def test_all_problems_of_a_request_are_reported_at_once(siblings, tmp_path):
    a = siblings["builtin"][0]
    (tmp_path / "merged").mkdir()
    with pytest.raises(ValueError) as refused:
        merge(models=[f"{a}:1.5", "runs/nowhere:0.2", f"{a}/../{a.name}:0.1"], out=tmp_path / "merged")
    text = str(refused.value)
    assert "5 problems" in text.splitlines()[0]
    for expected in (
        "1.5, 0.2, 0.1 add up to 1.8",
        "1.5, 0.2, 0.1 leave [0, 1]",
        f"out: '{tmp_path / 'merged'}' exists already",
        "model 'runs/nowhere'",
        f"'{a}/../{a.name}' is the same folder as '{a}'",
    ):
        assert expected in text
    assert list((tmp_path / "merged").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "two models, A=<quality> B=<diverse>"),
        ({"a": "base"}, "two models"),
        ({"b": "base", "lam": 0.5}, "two models"),
        ({"a": "base", "models": ["x", "y"]}, "MODELS .*A, B or LAMBDA"),
        ({"lam": 0.5, "models": ["x", "y"]}, "MODELS .*A, B or LAMBDA"),
        ({"models": ["x:0.5", "y"]}, "no weight for y"),
    ],
)
def test_incomplete_or_contradictory_requests_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        merge(**arguments)


@pytest.mark.parametrize("lam", [-0.1, 1.05, float("nan"), float("inf")])
def test_lambda_outside_the_interval_must_be_allowed(lam, siblings, tmp_path):
    a, b, _ = map(str, siblings["builtin"])
    with pytest.raises(ValueError, match="EXTRAPOLATE=1" if abs(lam) < 2 else "expected finite"):
        merge(a, b, lam=lam, out=tmp_path / "merged")
    if abs(lam) < 2:
        out = merge(a, b, lam=lam, out=tmp_path / "merged", extrapolate=True)
        assert "EXTRAPOLATE=1" in (out / "README.md").read_text()


def test_a_full_disk_is_reported_before_the_merge(siblings, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=1000))
    a, b, _ = map(str, siblings["builtin"])
    with pytest.raises(ValueError, match="0.00 GiB .*0.00 GiB free"):
        merge(a, b, out=tmp_path / "merged")
    assert list(tmp_path.iterdir()) == []


def test_a_hub_model_is_downloaded(siblings, tmp_path, monkeypatch):
    a, b, _ = siblings["library"]
    requests = []

    def snapshot(name, revision, allow_patterns):
        requests.append((name, revision, allow_patterns))
        return str(b)

    monkeypatch.setattr(pretrained, "hub_commit", lambda name, revision: f"commit of {revision}")
    monkeypatch.setattr(pretrained, "snapshot_download", snapshot)
    out = merge(str(a), "some-owner/musicgen@v1", lam=0.5, out=tmp_path / "merged")
    assert requests == [("some-owner/musicgen", "commit of v1", ["*.safetensors", "*.json", "*.model", "*.txt"])]
    models = yaml.safe_load((out / "recipe.yaml").read_text())["models"]
    assert [model["model"] for model in models] == [str(a), "some-owner/musicgen@v1"]

    def unreachable(name, revision, allow_patterns):
        raise FileNotFoundError("no route")

    monkeypatch.setattr(pretrained, "snapshot_download", unreachable)
    with pytest.raises(ValueError, match="'some-owner/musicgen' cannot be loaded: no route.*MODEL=<folder>"):
        merge(str(a), "some-owner/musicgen", out=tmp_path / "never")


def test_only_files_that_apply_to_the_merge_are_copied(siblings, tmp_path):
    a, b = (shutil.copytree(folder, tmp_path / folder.name) for folder in siblings["library"][:2])
    for name in ("metrics.json", "pytorch_model.bin", "optimizer.pt", "README.md"):
        (a / name).write_text("{}")
    (a / "spiece.model").write_bytes(b"pieces")
    out = merge(str(a), str(b), out=tmp_path / "merged")
    names = {path.name for path in out.iterdir()}
    assert names == {path.name for path in b.iterdir()} | {"spiece.model", "recipe.yaml", "README.md"}
    (b / "spiece.model").write_bytes(b"others")
    with pytest.raises(ValueError, match="spiece.model: not the same"):
        merge(str(a), str(b), out=tmp_path / "never")


def test_an_invalid_recipe_is_reported(siblings, tmp_path):
    a = shutil.copytree(siblings["builtin"][0], tmp_path / "a")
    (a / "recipe.yaml").write_text("kind: [")
    with pytest.raises(ValueError, match="recipe.yaml' is not valid YAML"):
        merge(str(a), str(siblings["builtin"][1]), out=tmp_path / "merged")
