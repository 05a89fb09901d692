"""The players of the page: which clips are shown with which prompt."""

from __future__ import annotations

import base64
import io
import re
import shutil
from pathlib import Path

import numpy as np
import soundfile

from qd.audio.files import write_audio
from qd.report.data import ReportData
from qd.report.listening import listening
from tests.report.conftest import Synthetic, tone


def pitches(page: str) -> list[tuple[str, list[int]]]:
    """For each row of players the prompt, and the pitch of each sample in Hz."""
    rows = re.findall(r"<td class=prompt>([^<]*)</td>(.*?)</tr>", page)
    sounds = [(prompt, re.findall(r'src="data:audio/mpeg;base64,([^"]+)"', players)) for prompt, players in rows]
    return [(prompt, [pitch(base64.b64decode(text)) for text in texts]) for prompt, texts in sounds]


def pitch(sound: bytes) -> int:
    audio, rate = soundfile.read(io.BytesIO(sound))
    assert (len(audio), rate) == (800, 16_000)
    return int(np.abs(np.fft.rfft(audio, rate)).argmax())


def test_samples_of_a_prompt_are_side_by_side(whole: Path) -> None:
    rows = pitches(listening(ReportData(whole)))
    assert [prompt for prompt, _ in rows] == ["prompt 0", "prompt 1"]
    np.testing.assert_allclose([hertz for _, hertz in rows], [[300, 450], [600, 900]], atol=10)


def test_one_sample_per_prompt_as_saved_by_earlier_versions(whole: Path, synthetic: Synthetic) -> None:
    """More than ten files are sorted by number, not by name."""
    folder = synthetic.results.audio(synthetic.results.points.read()[0].key)
    shutil.rmtree(folder)
    for number in range(1, 12):
        write_audio(folder / f"prompt-{number}.flac", tone(200 + 50 * number), 16_000)
    page = listening(ReportData(whole))
    rows = pitches(page)
    assert [prompt for prompt, _ in rows] == [f"prompt {i}" for i in range(11)] and "side by side" not in page
    np.testing.assert_allclose([hertz for _, hertz in rows], [[250 + 50 * i] for i in range(11)], atol=10)
