from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from scipy.signal import lfilter

from qd.audio.files import write_audio
from qd.cli.main import main
from qd.commands.train_preference import train_preference
from qd.models.checkpoints.fingerprint import fingerprint
from qd.models.embedders.loading import load_embedder
from qd.scorers.preference import PreferenceScorer
from tests.data.sounds import RATE

CLIPS = 40


def muffled(number: int, dullness: float, seconds: float = 2.0, rate: int = RATE) -> np.ndarray:
    """Noise through a one-pole low-pass: white at a dullness of 0, a rumble at 1."""
    pole = 0.98 * dullness
    noise = np.random.default_rng(number).normal(size=round(seconds * rate))
    return 0.1 * lfilter([(1 - pole**2) ** 0.5], [1, -pole], noise)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> tuple[Path, np.ndarray]:
    """WAV files with several rates and lengths, and their dullness; listeners prefer less dullness."""
    folder = tmp_path_factory.mktemp("rated")
    dullness = np.random.default_rng(2).permutation(np.linspace(0, 1, CLIPS))
    for number in range(CLIPS):
        rate = (16_000, 22_050)[number % 2]
        write_audio(folder / f"{number:02d}.wav", muffled(number, dullness[number], 1.5 + 0.01 * number, rate), rate)
    return folder, dullness


def table(path: Path, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> Path:
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def pairwise(folder: Path, dullness: np.ndarray) -> Path:
    rng = np.random.default_rng(1)
    pairs = [rng.choice(CLIPS, 2, replace=False) for _ in range(400)]
    rows = [(f"{a:02d}.wav", f"{b:02d}.wav", "a" if dullness[a] < dullness[b] else "b") for a, b in pairs]
    return table(folder / "pairs.csv", ("audio_a", "audio_b", "preferred"), rows)


def absolute(folder: Path, dullness: np.ndarray) -> Path:
    """Two raters, one of them stricter: only comparisons within a rater are meaningful."""
    rows = [
        (f"{number:02d}.wav", round(5 - 2 * dullness[number] - 2 * strict, 1), f"rater {strict}")
        for number in range(CLIPS)
        for strict in (0, 1)
    ]
    return table(folder / "ratings.csv", ("audio", "rating", "rater"), rows)


@pytest.mark.parametrize("ratings", [pairwise, absolute])
def test_a_known_preference_is_learned(ratings: Callable, recordings, tmp_path, capsys):
    """Brighter is better; with the shipped embedder that no reward uses."""
    folder, dullness = recordings
    out = train_preference(ratings(folder, dullness), out=tmp_path / "mine", validation_share=0.3, max_steps=150)
    printed = capsys.readouterr().out
    metrics = json.loads((out / "metrics.json").read_text())
    accuracy = metrics["accuracy"]
    assert accuracy["mean"] > 0.9 and accuracy["lo"] > 0.7
    assert metrics["log_loss"] < 0.5
    assert f"held-out accuracy {accuracy['mean']:.3f}" in printed and "chance 0.500" in printed
    scorer = PreferenceScorer.from_pretrained(out)
    dullness = np.linspace(0, 1, 10)
    unheard = [torch.from_numpy(muffled(100, level)).float() for level in dullness]
    scores = scorer(torch.stack(unheard), RATE, [""] * 10)
    assert np.corrcoef(scores.numpy(), dullness)[0, 1] < -0.8


def test_the_scale_and_the_card(recordings, tiny_embedder, tmp_path):
    folder, dullness = recordings
    data = absolute(folder, dullness)
    out = train_preference(data, str(tiny_embedder), out=tmp_path / "mine", max_steps=20, seed=3)
    scorer = PreferenceScorer.from_pretrained(out)
    scores = []
    for path in sorted(folder.glob("*.wav")):
        audio, rate = soundfile.read(path, dtype="float32")
        scores.append(float(scorer(torch.from_numpy(audio)[None], rate, [""])))
    assert np.mean(scores) == pytest.approx(0, abs=1e-3) and np.std(scores, ddof=1) == pytest.approx(1, abs=1e-3)
    card, metrics = (out / "README.md").read_text(), json.loads((out / "metrics.json").read_text())
    assert metrics["fingerprint"] == fingerprint(load_embedder(str(tiny_embedder)))
    command = f"qd train-preference --data {data} --embedder {tiny_embedder} --seed 3 --validation-share 0.2"
    assert command in card and "80 absolute ratings of 40 recordings by 2 raters" in card
    assert metrics["fingerprint"][:8] in card and "agree in 100.0%" in card
    assert (metrics["seed"], metrics["held_out_recordings"]) == (3, 8)


def test_the_same_command_gives_the_same_scorer(recordings, tiny_embedder, tmp_path):
    data = pairwise(*recordings)
    outs = [train_preference(data, str(tiny_embedder), out=tmp_path / name, max_steps=20) for name in "ab"]
    assert len({PreferenceScorer.from_pretrained(out).version for out in outs}) == 1


def test_random_ratings_give_chance_accuracy(recordings, tiny_embedder, tmp_path, capsys):
    """Coin tosses: the head cannot learn them, and the metrics show it."""
    rng, (folder, _) = np.random.default_rng(5), recordings
    pairs = [(*rng.choice(CLIPS, 2, replace=False), rng.choice(["a", "b"])) for _ in range(300)]
    rows = [(f"{a:02d}.wav", f"{b:02d}.wav", winner) for a, b, winner in pairs]
    data = table(folder / "tosses.csv", ("audio_a", "audio_b", "preferred"), rows)
    out = train_preference(data, str(tiny_embedder), out=tmp_path / "mine", validation_share=0.5, max_steps=40)
    accuracy = json.loads((out / "metrics.json").read_text())["accuracy"]
    assert accuracy["lo"] < 0.5 < accuracy["hi"]


def test_all_bad_settings_are_listed_before_anything_is_read(tmp_path, capsys):
    (tmp_path / "old").mkdir()
    arguments = ["--data", "gone.csv", "--out", str(tmp_path / "old"), "--validation-share=1", "--max-steps=0"]
    assert main(["train-preference", *arguments, "--head-width=0", "--device=tpu"]) == 2
    error = capsys.readouterr().err
    assert "5 problems" in error and "gone.csv" not in error
    assert f"{str(tmp_path / 'old')!r} exists already; choose another OUT" in error
    assert all(text in error for text in ("validation_share is 1.0", "max_steps is 0", "head_width is 0", "'tpu'"))


def test_all_damaged_recordings_are_listed(recordings, tiny_embedder, tmp_path):
    folder, dullness = recordings
    for number in range(4):
        write_audio(tmp_path / f"{number:02d}.wav", muffled(number, 0.1), RATE)
    for number in (1, 2):
        whole = (tmp_path / f"{number:02d}.wav").read_bytes()
        (tmp_path / f"{number:02d}.wav").write_bytes(whole[:44] + b"")
    rows = [("00.wav", "03.wav", "a"), ("01.wav", "02.wav", "b")]
    data = table(tmp_path / "pairs.csv", ("audio_a", "audio_b", "preferred"), rows)
    with pytest.raises(ValueError) as error:
        train_preference(data, str(tiny_embedder), out=tmp_path / "mine")
    assert "line 3" in str(error.value) and "01.wav" in str(error.value) and "02.wav" in str(error.value)
    assert not (tmp_path / "mine").exists()
