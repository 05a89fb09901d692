"""The players of the page: which sounds stand beside which prompt."""

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


def heard(page: str) -> list[tuple[str, list[int]]]:
    """Of each row of the players the prompt, and the pitch of each sample in Hz."""
    rows = re.findall(r"<td class=prompt>([^<]*)</td>(.*?)</tr>", page)
    sounds = [(prompt, re.findall(r'src="data:audio/mpeg;base64,([^"]+)"', players)) for prompt, players in rows]
    return [(prompt, [pitch(base64.b64decode(text)) for text in texts]) for prompt, texts in sounds]


def pitch(sound: bytes) -> int:
    audio, rate = soundfile.read(io.BytesIO(sound))
    assert (len(audio), rate) == (800, 16_000)
    return int(np.abs(np.fft.rfft(audio, rate)).argmax())


def test_samples_of_a_prompt_are_side_by_side(whole: Path) -> None:
    rows = heard(listening(ReportData(whole)))
    assert [prompt for prompt, _ in rows] == ["prompt 0", "prompt 1"]
    np.testing.assert_allclose([pitches for _, pitches in rows], [[300, 450], [600, 900]], atol=10)


def test_a_page_of_one_sample_a_prompt_as_earlier_versions_kept_it(whole: Path, synthetic: Synthetic) -> None:
    """The files of ten prompts and more come in the order of their numbers."""
    folder = synthetic.results.audio(synthetic.results.points.read()[0].key)
    shutil.rmtree(folder)
    for number in range(1, 12):
        write_audio(folder / f"prompt-{number}.flac", tone(200 + 50 * number), 16_000)
    page = listening(ReportData(whole))
    rows = heard(page)
    assert [prompt for prompt, _ in rows] == [f"prompt {i}" for i in range(11)] and "side by side" not in page
    np.testing.assert_allclose([pitches for _, pitches in rows], [[250 + 50 * i] for i in range(11)], atol=10)
