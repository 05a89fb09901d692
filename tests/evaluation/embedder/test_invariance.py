from __future__ import annotations

import numpy as np
import pytest
import torch

from qd.evaluation.embedder.heldout import ClipBatch, DrumBatch
from qd.evaluation.embedder.invariance import ALTERATIONS, alterations, codec_round_trip, low_pass

RATE, SAMPLES = 16_000, 8000


def tone(hertz: float, samples: int = SAMPLES) -> torch.Tensor:
    return torch.sin(torch.arange(samples) * (2 * np.pi * hertz / RATE))[None].float()


def frequency(audio: torch.Tensor) -> float:
    """Frequency of the strongest spectral line, in Hz."""
    spectrum = np.abs(np.fft.rfft(audio[0].numpy() * np.hanning(audio.shape[1]), 2**16))
    return float(spectrum.argmax() * RATE / 2**16)


def test_low_pass_passes_frequencies_below_two_kilohertz():
    def gain(hertz):
        return float(low_pass(tone(hertz), RATE)[:, 2000:].square().mean() / tone(hertz)[:, 2000:].square().mean())

    assert gain(500.0) == pytest.approx(1.0, abs=0.01)
    assert gain(2000.0) == pytest.approx(0.5, abs=0.02)
    assert gain(4000.0) < 1e-4


def test_a_codec_runs_at_its_own_sample_rate():
    lengths = []

    def codec(audio):
        lengths.append(audio.shape[1])
        return audio

    audio = tone(440.0)
    decoded = codec_round_trip(codec, 24_000, RATE)(audio)
    assert lengths == [12_000] and decoded.shape == audio.shape
    torch.testing.assert_close(decoded[:, 500:-500], audio[:, 500:-500], atol=0.01, rtol=0)


def batch(longer: bool, drums: bool) -> ClipBatch:
    pairs = torch.stack([tone(300.0 + 50 * i).expand(2, -1) for i in range(3)])
    changed = DrumBatch(pairs[:, 0], pairs[:, 0] + 1, torch.tensor([True, False, True]))
    twice = torch.stack([tone(300.0 + 50 * i, 2 * SAMPLES)[0] for i in range(3)])
    return ClipBatch(
        pairs, twice if longer else None, changed if drums else None, [None] * 3, pairs[:, 1] - 1 if drums else None
    )


def altered(clips: ClipBatch, seed: int = 0) -> dict[str, tuple]:
    generator = torch.Generator().manual_seed(seed)
    return {name: pair for name, *pair in alterations(clips, RATE, lambda audio: 0.5 * audio, generator)}


def test_every_alteration_that_the_batch_allows_is_made():
    clips = batch(longer=True, drums=True)
    everything = altered(clips)
    assert tuple(everything) == ALTERATIONS
    for name, (original, changed, rows) in everything.items():
        assert rows is None if "tempo" in name else len(rows) == len(changed), name
        before = clips.pairs[:, 0] if original is None else original
        assert before.shape == changed.shape and not torch.equal(before, changed), name
    assert torch.equal(everything["codec round trip"][1], 0.5 * clips.pairs[:, 0])
    assert torch.equal(everything["drums added"][1], clips.pairs[[0, 2], 0] + 1)
    assert torch.equal(everything["drums removed"][0], clips.pairs[[1], 0])
    assert everything["drums added"][2].tolist() == [0, 2] and everything["drums removed"][2].tolist() == [1]
    assert torch.equal(everything["minor for major"][1], clips.pairs[:, 1] - 1)
    without = set(altered(batch(longer=False, drums=False)))
    assert without == {
        name for name in ALTERATIONS if "tempo" not in name and name not in ("drums removed", "minor for major")
    }


def test_tempo_keeps_the_pitch_and_moves_time():
    clips = batch(longer=True, drums=False)
    burst = torch.zeros_like(clips.longer)
    burst[:, 2000:6000] = clips.longer[:, 2000:6000]  # its middle is at 4000
    for name, rate in (("tempo + 20 %", 1.2), ("tempo − 20 %", 0.8)):
        changed = altered(clips._replace(longer=burst))[name][1]
        energy = changed.square()
        middle = (energy * torch.arange(SAMPLES)).sum(1) / energy.sum(1)
        torch.testing.assert_close(middle, torch.full((3,), 4000 / rate), atol=200, rtol=0)
        assert frequency(changed[1:2, 2000:4500]) == pytest.approx(350.0, rel=0.02)


def test_pitch_moves_by_semitones_and_time_does_not():
    for name, semitones in (("pitch + 3 semitones", 3.0), ("pitch − 3 semitones", -3.0)):
        changed = altered(batch(longer=False, drums=False))[name][1]
        assert frequency(changed[1:2]) == pytest.approx(350.0 * 2 ** (semitones / 12), rel=0.01)


def test_drums_are_added_six_decibels_below_the_music():
    clips = batch(longer=False, drums=False)
    drums = altered(clips)["drums added"][1] - clips.pairs[:, 0]
    ratio = 10 * torch.log10(clips.pairs[:, 0].square().mean(1) / drums.square().mean(1))
    torch.testing.assert_close(ratio, torch.full((3,), 6.0), atol=1e-3, rtol=0)


@pytest.mark.parametrize("snr_db", [20, 10])
def test_noise_has_its_level_and_a_seed(snr_db):
    clips = batch(longer=False, drums=False)
    noisy = altered(clips)[f"noise, {snr_db} dB"][1]
    clean = clips.pairs[:, 0]
    ratio = 10 * torch.log10(clean.square().mean(1) / (noisy - clean).square().mean(1))
    torch.testing.assert_close(ratio, torch.full((3,), float(snr_db)), atol=0.3, rtol=0)
    assert torch.equal(noisy, altered(clips)[f"noise, {snr_db} dB"][1])


def test_room_and_equaliser_differ_from_clip_to_clip():
    clips = batch(longer=False, drums=False)
    same = clips._replace(pairs=clips.pairs[:1].expand(3, -1, -1))
    room, equaliser = (altered(same)[name][1] for name in ("room, 0.6 s", "equaliser, ± 9 dB"))
    assert torch.pdist(room).min() > 1 and torch.pdist(equaliser).min() > 0.1
    added = (room - same.pairs[:, 0])[:, 4000:].square().mean(1) / same.pairs[:, 0].square().mean(1)
    assert (added > 0.01).all() and (added < 3).all()
