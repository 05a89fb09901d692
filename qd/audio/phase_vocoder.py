"""Tempo without pitch and pitch without tempo, by a phase vocoder in which every clip has numbers of its own.

Analysis and synthesis frames are equally far apart. Output frame t of a clip lies at t·rate among its input frames:
its magnitudes are interpolated between the two neighbours, its phases go on from the frame before by the turn between
these two (Flanagan and Golden, 1966; ``librosa.phase_vocoder``). A turn is a complex number of modulus one, so that
phases add up as a product of such numbers, with no arc tangent, sine or wrapping. A higher pitch is a slower vocoder
played faster: one pass makes both changes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

N_FFT, HOP = 1024, 256  # 64 ms at 16 kHz, with the overlap of four that a squared Hann window asks for
PASS, STOP = 0.94, 0.98
"""Between these shares of what the output can hold, the spectrum of a shifted clip fades out, against aliasing."""
ANCHOR = 4
"""The output frame that has the phases of its input. Frame 0 would do, had its window not half of silence in it: the
phases of a sound that begins are no start for one that goes on, and a held note would lose a tenth of its level."""
SILENT = 1e-15
"""Magnitudes below it have phase 0."""
CLIPS_AT_ONCE = {"cpu": 1, "cuda": 256}
"""A spectrum is 1.3 MB a clip of 4 s: one fits into a core's cache (half the time of sixteen at once), so many into
4 GB of a GPU. Results do not depend on it."""
FRACTION_BITS = 32


def stretch(audio: Tensor, rate: Tensor, samples_out: int) -> Tensor:
    """Plays each clip ``rate`` times as fast, at its pitch.

    Args:
        audio: ``(batch, samples)`` float32; what would be read beyond its end is silence.
        rate: ``(batch,)``, more than 0; 1 gives the clip back.
        samples_out: length of the output.

    Returns:
        ``(batch, samples_out)`` float32: ``librosa.effects.time_stretch`` at ``n_fft=1024, hop_length=256``, but for a
        constant phase of each bin (see ``ANCHOR``) and for the last window.

    Raises:
        ValueError: the shapes are others.
    """
    _check(audio, rate, samples_out)
    return torch.cat([_stretch(*block, samples_out) for block in _blocks(audio, rate)])


def shift_pitch(audio: Tensor, semitones: Tensor, samples_out: int) -> Tensor:
    """Moves the pitch of each clip by ``semitones`` ``(batch,)``, at its tempo; otherwise as :func:`stretch`."""
    ratio = pitch_ratio(semitones)
    return change_tempo_and_pitch(audio, torch.ones_like(ratio), ratio, samples_out)


def change_tempo_and_pitch(
    audio: Tensor, tempo: Tensor, ratio: Tensor, samples_out: int, highest_ratio: float | None = None
) -> Tensor:
    """Plays each clip ``tempo`` times as fast and multiplies its frequencies by ``ratio``, in one pass.

    Args:
        audio: as in :func:`stretch`.
        tempo: ``(batch,)``, more than 0.
        ratio: ``(batch,)``, more than 0.
        samples_out: length of the output.
        highest_ratio: a bound of ``ratio``, where it is known without asking the device; computed if None.

    Returns:
        ``(batch, samples_out)`` float32. Frequencies that the output cannot hold are gone.

    Raises:
        ValueError: the shapes are others.
    """
    _check(audio, tempo, samples_out)
    _check(audio, ratio, samples_out)
    highest = float(ratio.max()) if highest_ratio is None else highest_ratio
    stretched = math.ceil(samples_out * highest) + 2  # the spline looks two samples ahead
    return torch.cat([_change(*block, stretched, samples_out) for block in _blocks(audio, tempo, ratio)])


def samples_read(samples_out: int, highest_tempo: float, lowest_ratio: float) -> int:
    """How many samples an output of ``samples_out`` depends on, at most."""
    # The last sample lies in a frame of which half a window is still to come, and so it is in the input.
    return math.ceil(samples_out * highest_tempo + N_FFT / 2 * (1 + highest_tempo / lowest_ratio)) + HOP


def pitch_ratio(semitones: Tensor) -> Tensor:
    """2^(semitones / 12)."""
    return 2.0 ** (semitones / 12)


def _check(audio: Tensor, numbers: Tensor, samples_out: int) -> None:
    if audio.ndim != 2 or numbers.shape != audio.shape[:1]:
        raise ValueError(
            f"audio of shape {tuple(audio.shape)} and one number a clip of shape {tuple(numbers.shape)}: expected "
            "(batch, samples) and (batch,)"
        )
    if samples_out < 1 or len(audio) == 0:
        raise ValueError(f"samples_out={samples_out} of {len(audio)} clips: expected at least one of both")


def _blocks(audio: Tensor, *numbers: Tensor) -> Iterator[tuple[Tensor, ...]]:
    size = CLIPS_AT_ONCE.get(audio.device.type, 16)
    return zip(audio.split(size), *(each.to(audio).split(size) for each in numbers), strict=True)


def _stretch(audio: Tensor, rate: Tensor, samples_out: int) -> Tensor:
    spectrum = _walk(_analyse(audio), rate, _frames(samples_out))
    return _synthesise(spectrum[:, None], samples_out)[:, 0]


def _change(audio: Tensor, tempo: Tensor, ratio: Tensor, stretched: int, samples_out: int) -> Tensor:
    """Shapes as in :func:`change_tempo_and_pitch`; ``stretched`` samples leave the vocoder, at twice the rate."""
    spectrum = _walk(_analyse(audio), tempo / ratio, _frames(stretched))
    bins = torch.arange(spectrum.shape[2], device=audio.device) / N_FFT  # cycles a sample
    later = torch.polar(torch.ones_like(bins), math.pi * bins)  # by half a sample
    gain = _spectral_gain(bins, ratio)[:, None]
    phases = _synthesise(torch.stack([spectrum * gain, spectrum * (gain * later)], dim=1), stretched)
    return _read(phases.transpose(1, 2).flatten(1), 2 * ratio, samples_out)


def _frames(samples: int) -> int:
    """Every frame that reaches into the first ``samples``."""
    return (samples + N_FFT // 2 - 1) // HOP + 1


def _analyse(audio: Tensor) -> Tensor:
    """Spectra ``(batch, frames, bins)`` complex64, centred on the multiples of the hop."""
    window = torch.hann_window(N_FFT, device=audio.device)
    spectrum = torch.stft(audio.float(), N_FFT, HOP, window=window, pad_mode="constant", return_complex=True)
    return spectrum.transpose(1, 2)


def _walk(spectrum: Tensor, rate: Tensor, frames: int) -> Tensor:
    """Reads spectra ``(batch, frames, bins)`` at ``rate`` ``(batch,)`` frames a step."""
    count = spectrum.shape[1]
    before, share = _positions(rate, frames)
    magnitude = (spectrum.real.square() + spectrum.imag.square()).sqrt_()
    unit = torch.view_as_complex(torch.view_as_real(spectrum) / magnitude.clamp_min(SILENT)[..., None])
    unit.masked_fill_(magnitude < SILENT, 1.0)
    turns = unit[:, 1:] * unit[:, :-1].conj()
    path = _take(turns, before[:, :-1])
    anchor = min(ANCHOR, frames - 1)
    first = _take(unit, before[:, anchor, None]) * path[:, :anchor].prod(dim=1, keepdim=True).conj()
    phase = torch.cat([first, path], dim=1).cumprod(dim=1)
    # Beyond the last frame lies silence.
    level = _take(magnitude, before) * ((1 - share) * (before < count))[..., None]
    level += _take(magnitude, before + 1) * (share * (before + 1 < count))[..., None]
    torch.view_as_real(phase).mul_(level[..., None])
    return phase


def _take(rows: Tensor, index: Tensor) -> Tensor:
    """``rows[b, index[b, i]]``, the last row where the index lies beyond it."""
    clips = torch.arange(len(rows), device=rows.device)[:, None]
    return rows[clips, index.clamp(max=rows.shape[1] - 1)]


def _positions(step: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Whole and fractional parts, ``(batch, count)`` int64 and float32, of 0, step, 2·step, …

    In fixed point, which holds these products exactly; in float32 a position of 100,000 is 0.008 coarse.
    """
    fixed = (step * 2.0**FRACTION_BITS).to(torch.int64)
    places = fixed[:, None] * torch.arange(count, device=step.device)
    whole = places >> FRACTION_BITS
    return whole, (places & (2**FRACTION_BITS - 1)).to(step.dtype) * 2.0**-FRACTION_BITS


def _synthesise(spectrum: Tensor, samples: int) -> Tensor:
    """Signals ``(batch, phases, samples)`` of spectra ``(batch, phases, frames, bins)``, phase p of P being p/P of a
    sample late. Window and overlap-add as in ``torch.istft``."""
    _, phases, count, _ = spectrum.shape
    window = torch.hann_window(phases * N_FFT, device=spectrum.device).view(N_FFT, phases).T[:, None]
    weight = _overlap_add(window.square().expand(-1, count, -1))
    signal = _overlap_add(torch.fft.irfft(spectrum).mul_(window))
    inside = slice(N_FFT // 2, N_FFT // 2 + samples)
    return signal[..., inside] / weight[..., inside]


def _overlap_add(frames: Tensor) -> Tensor:
    """Sum ``(…, length)`` of frames ``(…, count, N_FFT)``, each a hop later than the last."""
    *batch, count, n_fft = frames.shape
    turns = n_fft // HOP
    total = frames.new_zeros(*batch, count + turns - 1, HOP)
    for turn in range(turns):
        total[..., turn : turn + count, :] += frames[..., turn * HOP : (turn + 1) * HOP]
    return total.flatten(-2)


def _spectral_gain(bins: Tensor, ratio: Tensor) -> Tensor:
    """Gain ``(batch, bins)`` at frequencies in cycles a sample: a low-pass at what the output can hold, and the inverse
    of the low-pass that :func:`_read` is at twice the rate, sinc⁴ of half the frequency."""
    share = bins * 2 * ratio[:, None].clamp_min(1.0)  # of the Nyquist frequency, before or after the shift
    fade = ((STOP - share) / (STOP - PASS)).clamp(0, 1)
    return fade * torch.sinc(bins / 2) ** -4


def _read(signal: Tensor, step: Tensor, count: int) -> Tensor:
    """Samples ``(batch, count)`` at 0, step, 2·step, … of a signal, by the cubic B-spline of its samples.

    Of a signal at twice the rate, what it mirrors about the old Nyquist frequency is 40 dB down at 0.95 of that
    frequency and 67 dB at half of it.
    """
    whole, t = _positions(step, count)
    signal = F.pad(signal, (1, 2))  # sample i is now at i + 1
    a, b, c, d = (signal.gather(1, whole + offset) for offset in range(4))
    cubic, square, slope = (d - a) / 6 + (b - c) / 2, (a + c) / 2 - b, (c - a) / 2
    return ((cubic * t + square) * t + slope) * t + (a + 4 * b + c) / 6
