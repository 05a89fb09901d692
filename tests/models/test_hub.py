"""Names on the hub: what is asked, what is passed on, and what is said where nothing can be had. No network is used."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub.errors import (
    HTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from qd.merging.sources import open_source
from qd.models import pretrained
from qd.models.musicgen import MusicGen
from qd.models.pretrained import hub_commit

NAME = "facebook/musicgen-small"
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
    music = MusicGen.load(NAME, revision="main")
    assert there.asked == [(NAME, "main")] and music.revision == "c0ffee"
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
