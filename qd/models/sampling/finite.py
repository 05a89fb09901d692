"""Refuses samples of a model whose scores are not finite: its tokens would be noise that looks like a result."""

from __future__ import annotations

import torch
from torch import Tensor

from qd.models.musicgen import MusicGen
from qd.models.sampling.sampler import Sampled


class NonFiniteScoresError(ValueError):
    """A model's scores are NaN or infinite; the message names the model and the likely cause."""


def decode_finite(music: MusicGen, sampled: Sampled, channels: bool = False) -> Tensor:
    """Decodes codes to audio, ``(batch, samples)``, or ``(batch, channels, samples)`` if ``channels``.

    Raises:
        NonFiniteScoresError: The entropy, a log-probability or the audio of a sequence is not finite.
    """
    # The GPU kernel sums the entropy over tokens of positive probability, so NaN shows only in the log-probabilities.
    finite = sampled.entropy.isfinite() & sampled.log_probs.flatten(1).isfinite().all(dim=1)
    if not finite.all():
        broken = f"{int((~finite).sum())} of {len(finite)} sequences"
        raise NonFiniteScoresError(_message(music, f"its scores are not finite (NaN or infinite) in {broken}"))
    audio = music.decode_channels(sampled.codes) if channels else music.decode(sampled.codes)
    if not audio.isfinite().all():
        raise NonFiniteScoresError(_message(music, "its codec gives audio that is not finite (NaN or infinite)"))
    return audio


def _message(music: MusicGen, what: str) -> str:
    weights = music.lm.state_dict(prefix="lm.") | music.text_encoder.state_dict(prefix="text_encoder.")
    weights |= music.codec.state_dict(prefix="codec.")
    broken = [name for name, weight in weights.items() if not weight.isfinite().all()]
    if broken:
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        cause = f"the weight {broken[0]}{more} holds such values: its training diverged, or the file is damaged"
        mend = "use an earlier step, or save or download the model again"
    elif music.lm.decoder.dtype == torch.float16:
        cause, mend = "float16 overflows above 65,504", "use bfloat16 or float32 (dtype)"
    else:
        cause = "all weights are finite, so a sum of them overflows: its training diverged, or the guidance is too high"
        mend = "use an earlier step or a lower guidance"
    name = f"model {music.name!r}" if music.name else "the model"
    return f"{name}: {what}. Likely cause: {cause}; {mend}"
