"""Names of third-party models, and the errors if one cannot be loaded."""

from __future__ import annotations

import doctest
import sys

import pytest

from qd.models.checkpoints import pretrained
from qd.models.checkpoints.pretrained import check_source, parse_name
from qd.models.embedders.loading import check_embedder

KINDS = {"clap": "laion/larger_clap_music", "muq": "OpenMuQ/MuQ", "vggish": ""}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("clap", ("clap", "laion/larger_clap_music")),
        ("clap:", ("clap", "laion/larger_clap_music")),
        ("clap:a/b", ("clap", "a/b")),
        ("muq:~/weights:2", ("muq", "~/weights:2")),
        ("builtin", ("builtin", "embedder")),
        ("vggish:w.pth", ("vggish", "w.pth")),
        ("vggish", ("folder", "vggish")),
        ("builtin:x", ("folder", "builtin:x")),
        ("runs/clap", ("folder", "runs/clap")),
        ("clop:x", ("folder", "clop:x")),
        ("", ("folder", "")),
    ],
)
def test_a_name_is_a_kind_and_a_source(name, expected):
    assert parse_name(name, {"builtin": "embedder"}, KINDS) == expected


def test_the_examples_are_correct():
    assert doctest.testmod(pretrained).failed == 0


def test_a_folder_is_checked_and_a_hub_name_is_not(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "model").mkdir()
    with pytest.raises(ValueError, match="lacks config.json"):
        check_source(str(tmp_path / "model"))
    (tmp_path / "model/config.json").write_text('{"model_type": "t5"}')
    assert check_source("~/model", "t5") == str(tmp_path / "model")
    with pytest.raises(ValueError, match="'t5'; expected 'clap'"):
        check_source(str(tmp_path / "model"), "clap")
    assert check_source("owner/name", "clap") == "owner/name"
    for wrong in ("name", "/no/such/folder", str(tmp_path / "madel")):
        with pytest.raises(ValueError, match="does not exist.*hub name"):
            check_source(wrong)


def test_embedders_are_checked_without_loading(tiny_clap, tiny_embedder, tmp_path, monkeypatch):
    monkeypatch.setattr("qd.models.embedders.loading.ClapEmbedder.from_pretrained", None)
    for known in ("builtin", "builtin-heldout", tiny_embedder, "clap", f"clap:{tiny_clap}", "clap:owner/name"):
        check_embedder(known)
    monkeypatch.setitem(sys.modules, "muq", None)
    for name, message in (
        ("muq", r"pip install -e '\.\[muq\]'"),
        (f"clap:{tmp_path}", "lacks config.json"),
        (f"clap:{tiny_embedder}", "'audio_vit'; expected 'clap'"),
        (tmp_path, "builtin or builtin-heldout, a folder .* clap:<hub name or folder> or muq:"),
    ):
        with pytest.raises(ValueError, match=message):
            check_embedder(name)
