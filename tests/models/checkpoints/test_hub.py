"""Names on the hub: what is asked, what is passed on, and what is said where nothing can be had. No network is used."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub.errors import (
    HTTPError,
    LocalEntryNotFoundError,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from qd.models.checkpoints import pretrained
from qd.models.checkpoints.pretrained import hub_commit
from qd.models.merging.sources import open_source
from qd.models.musicgen import MusicGen

NAME = "facebook/musicgen-small"
COMMIT = "c0ffee" + 34 * "0"
ANSWER = SimpleNamespace(headers={}, request=None)


class Hub:
    """Answers, or raises what it is given."""

    def __init__(self, answer: str | Exception) -> None:
        self.answer = answer
        self.asked: list[tuple] = []

    def model_info(self, name: str, revision: str | None = None, timeout: float | None = None) -> SimpleNamespace:
        self.asked.append((name, revision))
        if isinstance(self.answer, Exception):
            raise self.answer
        return SimpleNamespace(sha=self.answer)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch):
    """Puts a hub in the place of the network; nothing has been downloaded."""

    def put(answer: str | Exception) -> Hub:
        there = Hub(answer)

        def nothing(name: str, file: str, revision: str | None, local_files_only: bool) -> str:
            assert local_files_only
            raise LocalEntryNotFoundError("not there")

        monkeypatch.setattr(pretrained, "HfApi", lambda: there)
        monkeypatch.setattr(pretrained, "hf_hub_download", nothing)
        return there

    return put


def put_config(monkeypatch: pytest.MonkeyPatch, answer: Path | Exception) -> list[tuple]:
    """Puts a ``config.json`` on the hub; what is asked comes into the list."""
    asked = []

    def download(name: str, file: str, revision: str, local_files_only: bool) -> str:
        asked.append((name, revision, local_files_only))
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    monkeypatch.setattr(pretrained, "hf_hub_download", download)
    return asked


def test_a_revision_is_pinned_to_its_commit_and_passed_to_every_part(
    hub, real_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = hub("c0ffee")
    asked = []

    def local(kind, source, **options):
        asked.append({key: options.get(key) for key in ("revision", "local_files_only")})
        kept = {key: value for key, value in options.items() if key not in ("revision", "local_files_only")}
        return pretrained.load_transformers(kind, str(real_checkpoint), **kept)

    monkeypatch.setattr("qd.models.musicgen.load_transformers", local)
    configs = put_config(monkeypatch, real_checkpoint / "config.json")
    music = MusicGen.load(NAME, revision="main")
    assert configs == [(NAME, "c0ffee", False)] and there.asked == [(NAME, "main")] and music.revision == "c0ffee"
    assert asked == [{"revision": "c0ffee", "local_files_only": False}] * 2  # weights and tokenizer
    assert MusicGen.load(real_checkpoint).revision is None


def test_offline_never_asks_the_network(hub) -> None:
    there = hub("c0ffee")
    with pytest.raises(ValueError, match="offline was asked for, and no copy is in its cache"):
        hub_commit(NAME, offline=True)
    assert there.asked == []


@pytest.mark.parametrize("ask", [MusicGen.load, lambda name: open_source(name, 1.0)], ids=["load", "weights"])
def test_every_command_takes_a_revision_and_says_how_to_name_a_folder(
    hub, ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sampling, FAD and ranges load models; merging, evaluating, sweeping and picking read their weights."""
    there = hub(HTTPError("no route"))
    with pytest.raises(ValueError, match=f"'{NAME}' cannot be loaded: .*`hf download {NAME} .*MODEL=<folder>"):
        ask(f"{NAME}@v1")
    assert there.asked == [(NAME, "v1")]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="offline was asked for, and no copy is in its cache"):
        ask(f"{NAME}@v1")
    assert there.asked == [(NAME, "v1")]


def test_two_revisions_are_refused() -> None:
    with pytest.raises(ValueError, match="has two revisions, 'v1' behind its name and 'v2'; name one"):
        MusicGen.load(f"{NAME}@v1", revision="v2")


def test_a_downloaded_model_needs_no_network(hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub(HTTPError("no route"))
    monkeypatch.setattr(pretrained, "hf_hub_download", lambda *a, **k: "/cache/snapshots/abc123/config.json")
    assert hub_commit(NAME) == "abc123" == hub_commit(NAME, offline=True)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ('{"model_type": "gpt2"}', "config.json has model_type 'gpt2', expected 'musicgen'; name a MusicGen"),
        ('{"model_type": ', r"config.json' is damaged \(Expecting value.*expected a JSON object"),
        (RemoteEntryNotFoundError("404", response=ANSWER), f"'{NAME}' has no config.json; expected one of"),
        (HTTPError("broken off"), f"'{NAME}' cannot be loaded: broken off"),
    ],
)
def test_what_is_no_musicgen_is_told_before_a_weight_is_fetched(
    hub, answer: str | Exception, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub("c0ffee")
    if isinstance(answer, str):
        (tmp_path / "config.json").write_text(answer)
    put_config(monkeypatch, tmp_path / "config.json" if isinstance(answer, str) else answer)
    monkeypatch.setattr("qd.models.musicgen.load_transformers", None)
    with pytest.raises(ValueError, match=message):
        MusicGen.load(NAME)


def test_a_tokenizer_that_knows_no_word_is_refused(
    real_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library makes one of 104 tokens where a model on the hub has no tokenizer files."""
    there = tmp_path / "models--me--musicgen"
    snapshot = there / "snapshots" / COMMIT
    shutil.copytree(real_checkpoint, snapshot, ignore=shutil.ignore_patterns("tokenizer*", "spiece.model"))
    (there / "refs").mkdir()
    (there / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(
        ValueError, match=r"'me/musicgen' has a tokenizer of 104 tokens .* of 32,128: tokenizer.json or"
    ):
        MusicGen.load("me/musicgen", offline=True)
    for file in real_checkpoint.glob("tokenizer*"):
        shutil.copy(file, snapshot)
    assert len(MusicGen.load("me/musicgen", offline=True).tokenizer) == 32_100


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (HTTPError("no route"), "the hub cannot be reached.*`hf download .*model.name=<folder>"),
        (OSError("proxy"), "the hub cannot be reached"),
        (RepositoryNotFoundError("404", response=ANSWER), "the hub has none of that name.*hf auth login"),
        (RevisionNotFoundError("404", response=ANSWER), "has no revision 'v9'; leave it out"),
    ],
)
def test_what_cannot_be_had_is_told(hub, answer: Exception, message: str) -> None:
    hub(answer)
    with pytest.raises(ValueError, match=f"'{NAME}'.*{message}"):
        MusicGen.load(NAME, revision="v9")
