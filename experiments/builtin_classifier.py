"""A simple classifier of genres and lead timbres: checks that the built-in world's variety is audible."""

from __future__ import annotations

from collections.abc import Sequence

import librosa
import numpy as np
import torch
import torch.nn.functional as F

from qd.data.world import world


def features(audio: np.ndarray) -> np.ndarray:
    """Features of a clip from its log-mel spectrogram (64 bands): mean, deviation and mean rise over time, tempogram.

    Returns:
        Float32 array ``(features,)``.
    """
    mel = librosa.feature.melspectrogram(y=audio, sr=world.SAMPLE_RATE, n_fft=1024, hop_length=320, n_mels=64)
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


def report(train_clips: int, test_clips: int) -> dict[str, tuple[float, float]]:
    """Accuracy and chance level for ``"genre"`` and ``"lead"`` on clean clips of held-out pieces."""
    train, test = _clean_clips("listener_train", train_clips), _clean_clips("listener_test", test_clips)
    return {
        "genre": held_out_accuracy((train[0], train[1]), (test[0], test[1])),
        "lead": held_out_accuracy((train[0], train[2]), (test[0], test[2])),
    }


def _clean_clips(split: str, count: int) -> tuple[np.ndarray, list[str], list[str]]:
    clips = [world.clip(split, index) for index in range(count)]
    clips = [c for c in clips if c.degradation == "clean"]
    return np.stack([features(c.audio) for c in clips]), [c.piece.genre for c in clips], [c.piece.lead for c in clips]
