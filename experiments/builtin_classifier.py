"""A simple classifier of genres and lead timbres: checks that the built-in world's variety is audible."""

from __future__ import annotations

from collections.abc import Sequence

import librosa
import numpy as np
import torch
import torch.nn.functional as F

from qd.data.world.timbres import SAMPLE_RATE
from qd.data.world.world import Clip
from qd.data.worlds import edition


def features(audio: np.ndarray) -> np.ndarray:
    """Features of a clip from its log-mel spectrogram (64 bands): mean, deviation and mean rise over time, tempogram.

    Returns:
        Float32 array ``(features,)``.
    """
    mel = librosa.feature.melspectrogram(y=audio, sr=SAMPLE_RATE, n_fft=1024, hop_length=320, n_mels=64)
    decibels = librosa.power_to_db(mel)
    rise = np.diff(decibels, axis=1).clip(0)
    onsets = rise.mean(0) - rise.mean()
    pulse = np.correlate(onsets, onsets, "full")[onsets.size - 1 :][4:80] / (onsets @ onsets + 1e-9)
    return np.concatenate([decibels.mean(1), decibels.std(1), rise.mean(1), 20 * pulse]).astype(np.float32)


def held_out_accuracy(
    train: tuple[np.ndarray, Sequence[str]], test: tuple[np.ndarray, Sequence[str]], steps: int = 300
) -> tuple[float, float]:
    """Accuracy on ``test`` of a two-layer perceptron fitted to ``train``, and of the most frequent training class.

    Args:
        train: Features ``(clips, features)`` and a label for each clip.
        test: The same for the test clips.
        steps: Number of full-batch Adam steps.
    """
    names = sorted(set(train[1]))
    x, x_test = torch.from_numpy(train[0]), torch.from_numpy(test[0])
    mean, deviation = x.mean(0), x.std(0) + 1e-3
    x, x_test = (x - mean) / deviation, (x_test - mean) / deviation
    y = torch.tensor([names.index(label) for label in train[1]])
    generator = torch.Generator().manual_seed(0)
    first = (torch.randn(x.shape[1], 64, generator=generator) * x.shape[1] ** -0.5).requires_grad_()
    second = (torch.randn(64, len(names), generator=generator) * 0.1).requires_grad_()
    optimizer = torch.optim.AdamW([first, second], lr=3e-3, weight_decay=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(F.gelu(x @ first) @ second, y).backward()
        optimizer.step()
    with torch.no_grad():
        predicted = (F.gelu(x_test @ first) @ second).argmax(1)
    correct = np.array([names[int(i)] == label for i, label in zip(predicted, test[1], strict=True)])
    most_frequent = max(names, key=list(train[1]).count)
    return float(correct.mean()), float(np.mean([label == most_frequent for label in test[1]]))


def report(train_clips: int, test_clips: int, world: int = 1) -> dict[str, tuple[float, float]]:
    """Accuracy and chance level for ``"genre"`` and ``"lead"`` on clean clips of held-out pieces.

    Args:
        train_clips: Number of clips, clean or not, of which the clean ones train the classifier.
        test_clips: The same for the test.
        world: Edition of the built-in world.
    """
    train, test = clean_clips("listener_train", train_clips, world), clean_clips("listener_test", test_clips, world)
    return accuracies(train, test, np.stack([c.audio for c in test]))


def accuracies(train: Sequence[Clip], test: Sequence[Clip], heard: np.ndarray) -> dict[str, tuple[float, float]]:
    """Accuracy and chance level of a classifier of ``train`` on the test clips, whose audio is ``heard``."""
    x, x_test = (np.stack([features(audio) for audio in clips]) for clips in ([c.audio for c in train], heard))
    labels = {"genre": lambda c: c.piece.genre, "lead": lambda c: c.piece.lead}
    return {
        name: held_out_accuracy((x, [of(c) for c in train]), (x_test, [of(c) for c in test]))
        for name, of in labels.items()
    }


def clean_clips(split: str, count: int, world: int = 1) -> list[Clip]:
    """Returns those of the first ``count`` clips of a split that are not degraded."""
    clips = (edition(world).clip(split, index) for index in range(count))
    return [c for c in clips if c.degradation == "clean"]
