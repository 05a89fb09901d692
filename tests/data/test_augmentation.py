"""Augmentation: each change has the requested size, depends only on the generator, and can be off."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor

from qd.data import augmentation
from qd.data.augmentation import Augmentation, add_noise, change_gain, layer_drums
from qd.data.drum_loops import LOOPS, SECONDS, draw_drums, drum_loops

OFF = {
    "snr_db_min": 300.0,  # below the resolution of float32
    "snr_db_max": 300.0,
    "gain_db_min": 0.0,
    "gain_db_max": 0.0,
    "tempo_min": 1.0,
    "tempo_max": 1.0,
    "pitch_semitones_min": 0.0,
    "pitch_semitones_max": 0.0,
    "drums_share": 0.0,
    "drums_snr_db_min": 0.0,
    "drums_snr_db_max": 12.0,
    "room_share": 0.0,
    "room_seconds_min": 0.2,
    "room_seconds_max": 1.0,
    "room_db_min": -10.0,
    "room_db_max": 0.0,
    "equaliser_share": 0.0,
    "equaliser_db": 9.0,
    "low_pass_share": 0.0,
    "low_pass_hz_min": 1_000.0,
    "low_pass_hz_max": 8_000.0,
    "high_pass_share": 0.0,
    "high_pass_hz_min": 30.0,
    "high_pass_hz_max": 300.0,
}
ALL = OFF | {
    "snr_db_min": 10.0,
    "snr_db_max": 50.0,
    "gain_db_min": -12.0,
    "gain_db_max": 6.0,
    "tempo_min": 0.8,
    "tempo_max": 1.25,
    "pitch_semitones_min": -3.0,
    "pitch_semitones_max": 3.0,
    "drums_share": 0.5,
    "room_share": 0.5,
    "equaliser_share": 0.5,
    "low_pass_share": 0.5,
    "high_pass_share": 0.5,
}
FILTERS = ("room", "equaliser", "low_pass", "high_pass")


CPU = torch.device("cpu")


def augment(**changes: float) -> Augmentation:
    return Augmentation(SimpleNamespace(**(OFF | changes)))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int) -> Tensor:
    return 0.1 * torch.randn(*shape, generator=generator(7))


def refuse(*_: object) -> Tensor:
    raise AssertionError("the vocoder ran")


def test_changes_that_are_off_change_no_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augmentation, "stretch", refuse)
    monkeypatch.setattr(augmentation, "change_tempo_and_pitch", refuse)
    audio = noise(3, 5_000)
    assert augment().needed_samples(4_000) == 4_000
    assert torch.equal(augment()(audio, 4_000, generator()), audio[:, :4_000])


def test_augmentation_is_a_function_of_the_generator() -> None:
    change = Augmentation(SimpleNamespace(**ALL))
    audio = noise(4, change.needed_samples(6_000))
    first, again = (change(audio, 6_000, generator(1)) for _ in range(2))
    assert torch.equal(first, again)
    assert first.shape == (4, 6_000) and first.dtype == torch.float32
    assert not torch.allclose(first, change(audio, 6_000, generator(2)), atol=1e-2)


def test_equal_clips_get_different_changes() -> None:
    for changes in (
        {"tempo_max": 1.25},
        {"pitch_semitones_max": 3.0},
        *({f"{kind}_share": 1.0} for kind in ("drums", *FILTERS)),
    ):
        change = augment(**changes)
        audio = noise(1, change.needed_samples(6_000)).expand(4, -1)
        assert torch.pdist(change(audio, 6_000, generator())).min() > 0.1


def test_without_filters_the_clips_are_those_of_drums_noise_and_gain() -> None:
    noisy = {"snr_db_min": 10.0, "snr_db_max": 50.0, "gain_db_min": -12.0, "gain_db_max": 6.0, "drums_share": 0.5}
    change, audio, same = augment(**noisy), noise(4, 60_000), generator()
    changed = change(audio, 60_000, generator())
    chosen = torch.randperm(4, generator=same)[:2]
    drums = draw_drums(drum_loops(16_000, CPU), 2, 60_000, same)
    louder = layer_drums(audio[chosen], drums, 12 * torch.rand(2, 1, generator=same)[:, 0])
    expected = audio.index_copy(0, chosen, louder)
    expected = change_gain(add_noise(expected, (10.0, 50.0), same), (-12.0, 6.0), same)
    assert torch.equal(changed, expected)


@pytest.mark.parametrize("kind", FILTERS)
def test_a_filter_changes_its_share_of_the_clips_and_no_bit_of_the_others(kind: str) -> None:
    audio = noise(8, 16_000)
    changed = augment(**{f"{kind}_share": 0.25})(audio, 16_000, generator())
    assert (changed != audio).any(dim=1).sum() == 2


def test_a_low_pass_removes_the_noise_too() -> None:
    ranges = {"snr_db_min": 0.0, "snr_db_max": 0.0, "low_pass_share": 1.0, "low_pass_hz_min": 500.0}
    changed = augment(**ranges, low_pass_hz_max=500.0)(noise(4, 16_000), 16_000, generator())
    power = torch.fft.rfft(changed).abs().square()  # bins of 1 Hz
    assert power[:, 4_000:].sum() < 1e-3 * power.sum()


def test_cutoffs_are_drawn_uniformly_in_octaves(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(
        augmentation, "low_pass", lambda audio, hertz, slope, rate: drawn.append((hertz, slope)) or audio
    )
    augment(low_pass_share=1.0)(torch.zeros(4_000, 1), 1, generator())
    ((hertz, slope),) = drawn
    assert 1_000 <= hertz.min() < 1_005 and 7_950 < hertz.max() <= 8_000
    assert hertz.log2().mean() == pytest.approx(np.log2(1_000) + 1.5, abs=0.05)
    assert slope.min() >= 12 and slope.max() <= 48


def test_silence_stays_silent() -> None:
    change = Augmentation(SimpleNamespace(**ALL))
    assert change(torch.zeros(4, change.needed_samples(3_000)), 3_000, generator()).abs().max() == 0


@pytest.mark.parametrize("changes", [{"tempo_min": 1.25, "tempo_max": 1.25}, ALL])
def test_needed_samples_are_exact(changes: dict[str, float]) -> None:
    change = augment(**changes)
    needed = change.needed_samples(4_000)
    audio = noise(2, needed + 3_000)
    whole, cut = (change(clips, 4_000, generator()) for clips in (audio, audio[:, :needed]))
    assert torch.equal(whole, cut)
    with pytest.raises(ValueError, match=f"{needed - 1} samples; expected {needed} "):
        change(audio[:, : needed - 1], 4_000, generator())


def test_tempo_draws_slow_and_fast_equally_often(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(augmentation, "stretch", lambda audio, rate, samples: drawn.append(rate) or audio[:, :samples])
    change = augment(tempo_min=0.8, tempo_max=1.25)
    change(torch.zeros(4_000, change.needed_samples(1)), 1, generator())
    (tempo,) = drawn
    assert 0.8 <= tempo.min() < 0.801 and 1.249 < tempo.max() <= 1.25
    assert tempo.log().mean().abs() < 0.005 and (tempo < 1).float().mean() == pytest.approx(0.5, abs=0.03)


def test_noise_has_the_requested_ratio() -> None:
    audio = torch.sin(torch.arange(20_000) * 0.1).expand(3, -1) * torch.tensor([[1.0], [0.1], [0.0]])
    noisy = add_noise(audio, (12.0, 12.0), generator())
    power = (noisy - audio).square().mean(dim=1)
    ratio = 10 * torch.log10(audio.square().mean(dim=1) / power)
    torch.testing.assert_close(ratio[:2], torch.full((2,), 12.0), atol=0.2, rtol=0)
    assert torch.equal(noisy[2], torch.zeros(20_000))


def test_gain_is_one_number_per_clip_within_its_range() -> None:
    louder = change_gain(torch.ones(500, 2), (-6.0, 6.0), generator())
    decibels = 20 * torch.log10(louder)
    assert torch.equal(louder[:, 0], louder[:, 1])
    assert -6 <= decibels.min() < -5.5 and 5.5 < decibels.max() <= 6


def test_drums_have_the_requested_ratio() -> None:
    music, drums = noise(4, 8_000), noise(4, 8_000).flip(1)
    music[2] = 0
    drums[3] = 0
    snr_db = torch.tensor([0.0, 12.0, 6.0, 6.0])
    added = layer_drums(music, drums, snr_db) - music
    ratio = 10 * (music.square().mean(1) / added.square().mean(1)).log10()
    torch.testing.assert_close(ratio[:2], snr_db[:2], atol=1e-3, rtol=0)
    assert added[2:].abs().max() == 0
    with pytest.raises(ValueError, match=r"\(4, 7999\).*\(4, 8000\)"):
        layer_drums(music, drums[:, 1:], snr_db)


def test_a_share_of_the_clips_gets_drums() -> None:
    audio = noise(8, 16_000)
    layered = augment(drums_share=0.25)(audio, 16_000, generator())
    changed = (layered != audio).any(dim=1)
    assert changed.sum() == 2
    added = (layered - audio)[changed]
    assert added.square().mean(1).min() > 0.1 * audio.square().mean()  # 0 to 12 dB below the music


@pytest.mark.parametrize("world", [1, 2])
def test_loops_differ_and_are_never_silent_for_long(world: int) -> None:
    loops = drum_loops(16_000, CPU, world)
    assert loops.shape == (LOOPS, SECONDS * 16_000) and loops.dtype == torch.float32
    assert loops is drum_loops(16_000, CPU, world)
    drum_loops.cache_clear()
    assert torch.equal(loops, drum_loops(16_000, CPU, world))
    seconds = loops[:, : 10 * 16_000].unflatten(1, (5, -1)).square().mean(2)  # a bar is never longer than 4 s
    assert (seconds.unfold(1, 2, 1).amax(2) > 1e-4).all()
    assert torch.pdist(loops).min() > 1


def test_excerpts_wrap_around_at_the_end_of_a_loop() -> None:
    loops = torch.arange(6.0).view(2, 3)
    drums = draw_drums(loops, 400, 5, generator())
    expected = {tuple((3 * row + (start + i) % 3) for i in range(5)) for row in range(2) for start in range(3)}
    assert {tuple(row) for row in drums.tolist()} == expected
