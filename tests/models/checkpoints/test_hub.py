"""Models on the hub: requests, loading options, and errors if a model cannot be loaded. No network is used."""

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
    """A hub that returns a commit, or raises an error, and records requests."""

    def __init__(self, answer: str | Exception) -> None:
        self.answer = answer
        self.requests: list[tuple] = []

    def model_info(self, name: str, revision: str | None = None, timeout: float | None = None) -> SimpleNamespace:
        self.requests.append((name, revision))
        if isinstance(self.answer, Exception):
            raise self.answer
        return SimpleNamespace(sha=self.answer)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch):
    """Function that replaces the network by a hub with the given answer; no model is downloaded."""

    def install(answer: str | Exception) -> Hub:
        fake = Hub(answer)

        def missing(name: str, file: str, revision: str | None, local_files_only: bool) -> str:
            assert local_files_only
            raise LocalEntryNotFoundError("not downloaded")

        monkeypatch.setattr(pretrained, "HfApi", lambda: fake)
        monkeypatch.setattr(pretrained, "hf_hub_download", missing)
        return fake

    return install


def put_config(monkeypatch: pytest.MonkeyPatch, answer: Path | Exception) -> list[tuple]:
    """Puts a ``config.json`` on the hub; returns a list that records the requests."""
    requests = []

    def download(name: str, file: str, revision: str, local_files_only: bool) -> str:
        requests.append((name, revision, local_files_only))
        if isinstance(answer, Exception):
            raise answer
        return str(answer)

    monkeypatch.setattr(pretrained, "hf_hub_download", download)
    return requests


def test_a_revision_is_pinned_to_its_commit_and_passed_to_every_part(
    hub, real_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = hub("c0ffee")
    loaded = []

    def local(kind, source, **options):
        loaded.append({key: options.get(key) for key in ("revision", "local_files_only")})
        others = {key: value for key, value in options.items() if key not in ("revision", "local_files_only")}
        return pretrained.load_transformers(kind, str(real_checkpoint), **others)

    for module in ("musicgen", "checkpoints.tokenizer"):
        monkeypatch.setattr(f"qd.models.{module}.load_transformers", local)
    configs = put_config(monkeypatch, real_checkpoint / "config.json")
    music = MusicGen.load(NAME, revision="main")
    assert configs == [(NAME, "c0ffee", False)] and fake.requests == [(NAME, "main")] and music.revision == "c0ffee"
    assert loaded == [{"revision": "c0ffee", "local_files_only": False}] * 2  # weights and tokenizer
    assert MusicGen.load(real_checkpoint).revision is None


def test_offline_mode_sends_no_request(hub) -> None:
    fake = hub("c0ffee")
    with pytest.raises(ValueError, match="offline.*no copy"):
        hub_commit(NAME, offline=True)
    assert fake.requests == []


@pytest.mark.parametrize("load", [MusicGen.load, lambda name: open_source(name, 1.0)], ids=["load", "weights"])
def test_every_command_accepts_a_revision_and_reports_how_to_use_a_folder(
    hub, load, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`sample`, `fad` and `scorer-ranges` load models; `merge`, `evaluate`, `sweep` and `pick` read their weights."""
    fake = hub(HTTPError("no route"))
    with pytest.raises(ValueError, match=f"'{NAME}' cannot be loaded: .*`hf download {NAME} .*MODEL=<folder>"):
        load(f"{NAME}@v1")
    assert fake.requests == [(NAME, "v1")]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="offline.*no copy"):
        load(f"{NAME}@v1")
    assert fake.requests == [(NAME, "v1")]


def test_two_revisions_are_refused() -> None:
    with pytest.raises(ValueError, match="two revisions, 'v1' .*'v2'"):
        MusicGen.load(f"{NAME}@v1", revision="v2")


def test_a_downloaded_model_needs_no_network(hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub(HTTPError("no route"))
    monkeypatch.setattr(pretrained, "hf_hub_download", lambda *a, **k: "/cache/snapshots/abc123/config.json")
    assert hub_commit(NAME) == "abc123" == hub_commit(NAME, offline=True)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ('{"model_type": "gpt2"}', "config.json has model_type 'gpt2', expected 'musicgen'"),
        ('{"model_type": ', r"config.json' is damaged \(Expecting value.*JSON object"),
        (RemoteEntryNotFoundError("404", response=ANSWER), f"'{NAME}' has no config.json"),
        (HTTPError("broken off"), f"'{NAME}' cannot be loaded: broken off"),
    ],
)
def test_another_model_is_reported_before_its_weights_are_downloaded(
    hub, answer: str | Exception, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub("c0ffee")
    if isinstance(answer, str):
        (tmp_path / "config.json").write_text(answer)
    put_config(monkeypatch, tmp_path / "config.json" if isinstance(answer, str) else answer)
    monkeypatch.setattr("qd.models.musicgen.load_transformers", None)
    with pytest.raises(ValueError, match=message):
        MusicGen.load(NAME)


def test_a_tokenizer_without_words_is_refused(
    real_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a hub model has no tokenizer files, the library creates a tokenizer of 104 tokens."""
    cached = tmp_path / "models--me--musicgen"
    snapshot = cached / "snapshots" / COMMIT
    shutil.copytree(real_checkpoint, snapshot, ignore=shutil.ignore_patterns("tokenizer*", "spiece.model"))
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ValueError, match=r"'me/musicgen' has a tokenizer of 104 tokens .* of 32,128: tokenizer.json"):
        MusicGen.load("me/musicgen", offline=True)
    for file in real_checkpoint.glob("tokenizer*"):
        shutil.copy(file, snapshot)
    assert len(MusicGen.load("me/musicgen", offline=True).tokenizer) == 32_100


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (HTTPError("no route"), "the hub cannot be reached.*`hf download .*model.name=<folder>"),
        (OSError("proxy"), "the hub cannot be reached"),
        (RepositoryNotFoundError("404", response=ANSWER), "the hub has no such model.*hf auth login"),
        (RevisionNotFoundError("404", response=ANSWER), "has no revision 'v9'"),
    ],
)
def test_unavailable_models_are_reported(hub, answer: Exception, message: str) -> None:
    hub(answer)
    with pytest.raises(ValueError, match=f"'{NAME}'.*{message}"):
        MusicGen.load(NAME, revision="v9")
