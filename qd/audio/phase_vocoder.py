"""Changes tempo without pitch and pitch without tempo, by a phase vocoder with separate factors for each clip.

Analysis and synthesis frames have the same hop. Output frame t of a clip has the position t·rate among its input
frames. Its magnitudes are interpolated between the two neighbours. Its phases are those of the output frame before plus
the phase difference of the two neighbours (Flanagan and Golden, 1966; ``librosa.phase_vocoder``). Phases are complex
numbers of modulus one, so that they add up as a product, without arc tangent, sine or phase wrapping. A higher pitch is
a slower vocoder that is played faster, so one pass makes both changes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

N_FFT, HOP = 1024, 256  # 64 ms at 16 kHz, with the overlap of four that a squared Hann window needs
PASS, STOP = 0.94, 0.98
"""Shares of the output's bandwidth between which the spectrum of a shifted clip fades out, against aliasing."""
ANCHOR = 4
"""The output frame that has the phases of its input. Half of the window of frame 0 is silence, so its phases are those
of the start of a sound; a sustained note would lose a tenth of its level with them."""
SILENT = 1e-15
"""Magnitudes below this have phase 0."""
CLIPS_AT_ONCE = {"cpu": 1, "cuda": 256}
"""Clips in a block. The spectrum of a clip of 4 s has 1.3 MB: one fits into a CPU core's cache, which halves the time
of sixteen at once; 256 need 4 GB on a GPU. Results do not depend on this number."""
FRACTION_BITS = 32
"""Fractional bits of a fixed-point position."""


def stretch(audio: Tensor, rate: Tensor, samples_out: int) -> Tensor:
    """Plays each clip ``rate`` times as fast at the same pitch.

    Equals ``librosa.effects.time_stretch`` with ``n_fft=1024, hop_length=256``, except for a constant phase of each bin
    (see ``ANCHOR``) and for the last window.

    Args:
        audio: Clips, ``(batch, samples)``, float32, followed by silence.
        rate: Tempo factor of each clip, ``(batch,)``, > 0. 1 leaves the clip unchanged.
        samples_out: Samples of the output.

    Returns:
        Clips, ``(batch, samples_out)``, float32.

    Raises:
        ValueError: If a shape is wrong, or there are no samples or clips.
    """
    _check(audio, rate, samples_out)
    return torch.cat([_stretch(*block, samples_out) for block in _blocks(audio, rate)])


def shift_pitch(audio: Tensor, semitones: Tensor, samples_out: int) -> Tensor:
    """Moves the pitch of each clip by ``semitones`` ``(batch,)`` at the same tempo. See :func:`stretch`."""
    ratio = pitch_ratio(semitones)
    return change_tempo_and_pitch(audio, torch.ones_like(ratio), ratio, samples_out)


def change_tempo_and_pitch(
    audio: Tensor, tempo: Tensor, ratio: Tensor, samples_out: int, highest_ratio: float | None = None
) -> Tensor:
    """Plays each clip ``tempo`` times as fast and multiplies its frequencies by ``ratio``, in one pass.

    Args:
        audio: Clips, ``(batch, samples)``, float32, followed by silence.
        tempo: Tempo factor of each clip, ``(batch,)``, > 0.
        ratio: Frequency factor of each clip, ``(batch,)``, > 0.
        samples_out: Samples of the output.
        highest_ratio: Upper bound of ``ratio``. None computes it, which reads a number from the device.

    Returns:
        Clips, ``(batch, samples_out)``, float32, without frequencies above the output's bandwidth.

    Raises:
        ValueError: If a shape is wrong, or there are no samples or clips.
    """
    _check(audio, tempo, samples_out)
    _check(audio, ratio, samples_out)
    highest = float(ratio.max()) if highest_ratio is None else highest_ratio
    stretched = math.ceil(samples_out * highest) + 2  # the spline reads two more samples
    return torch.cat([_change(*block, stretched, samples_out) for block in _blocks(audio, tempo, ratio)])


def samples_read(samples_out: int, highest_tempo: float, lowest_ratio: float) -> int:
    """Returns the largest number of input samples that ``samples_out`` output samples depend on."""
    # The last sample is in a frame whose window extends by half beyond it, and so does the window in the input.
    return math.ceil(samples_out * highest_tempo + N_FFT / 2 * (1 + highest_tempo / lowest_ratio)) + HOP


def pitch_ratio(semitones: Tensor) -> Tensor:
    """Returns 2^(semitones / 12)."""
    return 2.0 ** (semitones / 12)


def _check(audio: Tensor, numbers: Tensor, samples_out: int) -> None:
    if audio.ndim != 2 or numbers.shape != audio.shape[:1]:
        raise ValueError(
            f"audio has shape {tuple(audio.shape)} and the numbers of the clips {tuple(numbers.shape)}: expected "
            "(batch, samples) and (batch,)"
        )
    if samples_out < 1 or len(audio) == 0:
        raise ValueError(f"samples_out={samples_out} for {len(audio)} clips: expected at least one of both")


def _blocks(audio: Tensor, *numbers: Tensor) -> Iterator[tuple[Tensor, ...]]:
    size = CLIPS_AT_ONCE.get(audio.device.type, 16)
    return zip(audio.split(size), *(each.to(audio).split(size) for each in numbers), strict=True)


def _stretch(audio: Tensor, rate: Tensor, samples_out: int) -> Tensor:
    spectrum = _resample_frames(_analyse(audio), rate, _frames(samples_out))
    return _synthesise(spectrum[:, None], samples_out)[:, 0]


def _change(audio: Tensor, tempo: Tensor, ratio: Tensor, stretched: int, samples_out: int) -> Tensor:
    """Same as :func:`change_tempo_and_pitch`. The vocoder outputs ``stretched`` samples, twice, half a sample apart."""
    spectrum = _resample_frames(_analyse(audio), tempo / ratio, _frames(stretched))
    bins = torch.arange(spectrum.shape[2], device=audio.device) / N_FFT  # cycles a sample
    later = torch.polar(torch.ones_like(bins), math.pi * bins)  # a shift by half a sample
    gain = _spectral_gain(bins, ratio)[:, None]
    phases = _synthesise(torch.stack([spectrum * gain, spectrum * (gain * later)], dim=1), stretched)
    return _interpolate(phases.transpose(1, 2).flatten(1), 2 * ratio, samples_out)


def _frames(samples: int) -> int:
    """Returns the number of frames that overlap the first ``samples``."""
    return (samples + N_FFT // 2 - 1) // HOP + 1


def _analyse(audio: Tensor) -> Tensor:
    """Returns spectra ``(batch, frames, bins)``, complex64, centred on multiples of the hop."""
    window = torch.hann_window(N_FFT, device=audio.device)
    spectrum = torch.stft(audio.float(), N_FFT, HOP, window=window, pad_mode="constant", return_complex=True)
    return spectrum.transpose(1, 2)


def _resample_frames(spectrum: Tensor, rate: Tensor, frames: int) -> Tensor:
    """Returns spectra at the frame positions 0, rate, 2·rate, …

    Args:
        spectrum: Input spectra, ``(batch, input frames, bins)``.
        rate: Input frames for each output frame, ``(batch,)``.
        frames: Number of output frames.
    """
    count = spectrum.shape[1]
    before, share = _positions(rate, frames)
    magnitude = (spectrum.real.square() + spectrum.imag.square()).sqrt_()
    unit = torch.view_as_complex(torch.view_as_real(spectrum) / magnitude.clamp_min(SILENT)[..., None])
    unit.masked_fill_(magnitude < SILENT, 1.0)
    differences = unit[:, 1:] * unit[:, :-1].conj()
    steps = _select_frames(differences, before[:, :-1])
    anchor = min(ANCHOR, frames - 1)
    first = _select_frames(unit, before[:, anchor, None]) * steps[:, :anchor].prod(dim=1, keepdim=True).conj()
    phase = torch.cat([first, steps], dim=1).cumprod(dim=1)
    # Frames after the last one are silent.
    level = _select_frames(magnitude, before) * ((1 - share) * (before < count))[..., None]
    level += _select_frames(magnitude, before + 1) * (share * (before + 1 < count))[..., None]
    torch.view_as_real(phase).mul_(level[..., None])
    return phase


def _select_frames(rows: Tensor, index: Tensor) -> Tensor:
    """Returns ``rows[b, index[b, i]]``, with the last row for larger indices."""
    clips = torch.arange(len(rows), device=rows.device)[:, None]
    return rows[clips, index.clamp(max=rows.shape[1] - 1)]


def _positions(step: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Returns the whole and the fractional parts of 0, step, 2·step, …, ``(batch, count)`` int64 and float32.

    Fixed-point numbers hold these products exactly. In float32 a position of 100,000 has a resolution of 0.008.
    """
    fixed = (step * 2.0**FRACTION_BITS).to(torch.int64)
    positions = fixed[:, None] * torch.arange(count, device=step.device)
    whole = positions >> FRACTION_BITS
    return whole, (positions & (2**FRACTION_BITS - 1)).to(step.dtype) * 2.0**-FRACTION_BITS


def _synthesise(spectrum: Tensor, samples: int) -> Tensor:
    """Returns signals ``(batch, phases, samples)`` from spectra ``(batch, phases, frames, bins)``.

    Phase p of P is p/P of a sample late. Window and overlap-add are those of ``torch.istft``.
    """
    _, phases, count, _ = spectrum.shape
    window = torch.hann_window(phases * N_FFT, device=spectrum.device).view(N_FFT, phases).T[:, None]
    weight = _overlap_add(window.square().expand(-1, count, -1))
    signal = _overlap_add(torch.fft.irfft(spectrum).mul_(window))
    inside = slice(N_FFT // 2, N_FFT // 2 + samples)
    return signal[..., inside] / weight[..., inside]


def _overlap_add(frames: Tensor) -> Tensor:
    """Returns sums ``(…, length)`` of frames ``(…, count, N_FFT)``, each one hop after the last."""
    *batch, count, n_fft = frames.shape
    overlap = n_fft // HOP
    total = frames.new_zeros(*batch, count + overlap - 1, HOP)
    for hop in range(overlap):
        total[..., hop : hop + count, :] += frames[..., hop * HOP : (hop + 1) * HOP]
    return total.flatten(-2)


def _spectral_gain(bins: Tensor, ratio: Tensor) -> Tensor:
    """Returns the gain ``(batch, bins)`` at frequencies in cycles per sample.

    It is a low-pass at the bandwidth of the output, times the inverse of the low-pass of :func:`_interpolate` at twice
    the rate, sinc⁴ of half the frequency.
    """
    share = bins * 2 * ratio[:, None].clamp_min(1.0)  # of the lower Nyquist frequency, before or after the shift
    fade = ((STOP - share) / (STOP - PASS)).clamp(0, 1)
    return fade * torch.sinc(bins / 2) ** -4


def _interpolate(signal: Tensor, step: Tensor, count: int) -> Tensor:
    """Returns samples ``(batch, count)`` at 0, step, 2·step, … of a signal, by the cubic B-spline of its samples.

    For a signal at twice the rate, images about the old Nyquist frequency are 40 dB down at 0.95 of that frequency, and
    67 dB at half of it.
    """
    whole, t = _positions(step, count)
    signal = F.pad(signal, (1, 2))  # sample i has index i + 1
    a, b, c, d = (signal.gather(1, whole + offset) for offset in range(4))
    cubic, square, slope = (d - a) / 6 + (b - c) / 2, (a + c) / 2 - b, (c - a) / 2
    return ((cubic * t + square) * t + slope) * t + (a + 4 * b + c) / 6
