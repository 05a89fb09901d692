"""Many scored samples of a model for each prompt, drawn once and kept on disk."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from qd.config.headroom import MOST_SAMPLES
from qd.evaluation.evaluator import Evaluator, frozen_fingerprint, measurement_key
from qd.evaluation.measure import Sampling, score_clips
from qd.metrics.headroom import ScoredSamples
from qd.models.delay import delayed_steps
from qd.models.sampling.finite import decode_finite
from qd.models.sampling.sampler import Sampler, counter_uniforms
from qd.runs.atomic import atomic_write

STREAM = 2**61
"""The step for the counter of random numbers: neither training nor evaluation uses it."""

SCORES = ("quality", "adherence", "preference")
EMBEDDINGS = ("embedding", "heldout_embedding")


class SampleBank:
    """Draws samples, scores and embeds them, and keeps the numbers (not the audio) in one file for each prompt.

    Sample i of a prompt is a function of the seed, the prompt and i: more samples, or other prompts, reuse the files.

    Args:
        folder: Folder of the files, shared by all models; a file is named by a hash of all that made it.
        evaluator: The model's text encoder and codec, scorers, embedders and batch size.
        fingerprint: Fingerprint of the language model's weights, see :attr:`WeightSwapper.fingerprint`.
    """

    def __init__(self, folder: Path, evaluator: Evaluator, fingerprint: str) -> None:
        self.folder, self.evaluator, self.fingerprint = folder, evaluator, fingerprint
        self.frozen = frozen_fingerprint(evaluator.music)

    def missing(self, sampling: Sampling, count: int) -> int:
        """Number of clips that :meth:`samples` has to draw."""
        sizes = (len(self._load(prompt, sampling)["quality"]) for prompt in self.evaluator.prompts)
        return sum(max(0, count - size) for size in sizes)

    def samples(
        self, sampling: Sampling, count: int, progress: Callable[[int], None] = lambda clips: None
    ) -> ScoredSamples:
        """Returns the first ``count`` samples of each prompt of the evaluator's protocol.

        Samples that are not on disk yet are drawn and saved, prompt by prompt.

        Args:
            sampling: Guidance, temperature, clip length and seed.
            count: Samples of a prompt, at most :data:`MOST_SAMPLES`.
            progress: Called with the number of clips that were drawn.
        """
        tables = [self._complete(prompt, sampling, count, progress) for prompt in self.evaluator.prompts]
        stacked = {name: torch.from_numpy(np.stack([table[name][:count] for table in tables])) for name in tables[0]}
        scores = {name: stacked[name] for name in SCORES}
        return ScoredSamples(*(stacked[name] for name in EMBEDDINGS), scores)

    def _complete(
        self, prompt: str, sampling: Sampling, count: int, progress: Callable[[int], None]
    ) -> dict[str, np.ndarray]:
        table = self._load(prompt, sampling)
        start = len(table["quality"])
        if start >= count:
            return table
        parts = [table] if start else []
        for first in range(start, count, self.evaluator.eval_batch_size):
            number = min(self.evaluator.eval_batch_size, count - first)
            parts.append(
                {name: v.float().cpu().numpy() for name, v in self._draw(prompt, sampling, first, number).items()}
            )
            progress(number)
        table = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        self._save(prompt, sampling, table)
        return table

    @torch.no_grad()
    def _draw(self, prompt: str, sampling: Sampling, first: int, number: int) -> dict[str, Tensor]:
        music = self.evaluator.music
        lm, frames = music.lm, music.frames(sampling.seconds)
        base = zlib.crc32(prompt.encode()) * MOST_SAMPLES + first
        steps = delayed_steps(lm.codebooks, frames, lm.channels)
        uniforms = counter_uniforms(sampling.seed, STREAM, range(base, base + number), lm.codebooks, steps)
        uniforms = uniforms.to(music.device)
        sampled = Sampler(lm).sample(
            music.condition([prompt]).repeat_interleave(number),
            frames,
            temperature=sampling.temperature,
            uniforms=lambda step: uniforms[..., step],
            guidance_scale=sampling.guidance_scale,
            negative=None if sampling.negative is None else music.condition([sampling.negative]),
        )
        audio = decode_finite(music, sampled)
        return score_clips(self.evaluator.evaluation_models, audio, music.sample_rate, [prompt] * number)

    def _file(self, prompt: str, sampling: Sampling) -> Path:
        made_by = ([prompt], MOST_SAMPLES, sampling, self.evaluator.evaluation_models.description)
        return self.folder / f"{measurement_key(self.fingerprint, self.frozen, *made_by)}.npz"

    def _load(self, prompt: str, sampling: Sampling) -> dict[str, np.ndarray]:
        """What is on disk; a file that is missing or damaged counts as empty."""
        try:
            with np.load(self._file(prompt, sampling), allow_pickle=False) as file:
                return {name: file[name] for name in (*SCORES, *EMBEDDINGS)}
        except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile):
            return {"quality": np.empty(0)}

    def _save(self, prompt: str, sampling: Sampling, table: dict[str, np.ndarray]) -> None:
        with atomic_write(self._file(prompt, sampling)) as temporary, temporary.open("wb") as file:
            np.savez(file, **table)
