from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from qd.data.ratings import Ratings, read_ratings
from tests.data.sounds import sound, write


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with three recordings in the subfolder wavs."""
    for number, name in enumerate("xyz"):
        write(tmp_path / "wavs" / f"{name}.wav", sound(number, 0.1))
    return tmp_path


def ratings(folder: Path, text: str, name: str = "ratings.csv") -> Ratings:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return read_ratings(path)


def test_pairwise_preferences(folder):
    text = "audio_a,audio_b,preferred,rater\nwavs/x.wav,wavs/y.wav,a,anna\nwavs/y.wav,wavs/../wavs/z.wav,Tie,ben\n"
    result = ratings(folder, text + "wavs/z.wav,wavs/x.wav,b,anna\n")
    assert [path.name for path in result.paths] == ["x.wav", "y.wav", "z.wav"]
    assert result.sittings == ({0: 1.0, 1: 0.0}, {1: 0.0, 2: 0.0}, {2: -1.0, 0: 0.0})
    assert (result.kind, result.rows, result.raters) == ("pairwise", 3, 2)


def test_graded_differences_from_jsonl(folder):
    rows = [
        {"audio_a": "wavs/x.wav", "audio_b": "wavs/y.wav", "difference": -2, "rater": None},
        {"audio_a": str(folder / "wavs" / "z.wav"), "audio_b": "wavs/x.wav", "difference": 0.5},
    ]
    result = ratings(folder, "\n\n".join(map(json.dumps, rows)), "ratings.jsonl")
    assert result.sittings == ({0: -2.0, 1: 0.0}, {2: 0.5, 0: 0.0})
    assert result.raters == 0


def test_absolute_ratings_are_compared_within_rater_and_prompt(folder):
    text = """audio,rating,rater,prompt
wavs/x.wav,5,anna,jazz
wavs/y.wav,2,anna,jazz
wavs/x.wav,4,anna,jazz
wavs/z.wav,1,anna,rock
wavs/y.wav,3,ben,jazz
"""
    result = ratings(folder, text)
    assert result.sittings == ({0: 4.5, 1: 2.0}, {2: 1.0}, {1: 3.0})
    assert (result.kind, result.raters) == ("absolute", 2)
    alone = ratings(folder, "audio,rating\nwavs/x.wav,5\nwavs/y.wav,2\nwavs/z.wav,3.5\n")
    assert alone.sittings == ({0: 5.0, 1: 2.0, 2: 3.5},)


def test_all_bad_rows_are_listed_at_once(folder):
    (folder / "wavs" / "text.wav").write_text("no audio")
    write(folder / "wavs" / "empty.wav", np.zeros(0))
    bad = ["wavs/gone.wav,2", "wavs/y.wav,6", "wavs/y.wav,", "wavs/text.wav,nan", ",3", "wavs/empty.wav,1"]
    text = "\n".join(["audio,rating", "wavs/x.wav,5", *bad])
    with pytest.raises(ValueError) as error:
        ratings(folder, text)
    lines = str(error.value).splitlines()
    assert "has 7 rows that cannot be used" in lines[0] and "relative to the file's folder" in lines[0]
    assert lines[1:] == [
        "  • line 3: audio 'wavs/gone.wav' does not exist",
        "  • line 4: rating is '6'; expected a number from 1 to 5",
        "  • line 5: rating is None; expected a number from 1 to 5",
        "  • line 6: audio 'wavs/text.wav' is not readable audio (unreadable: Format not recognised.)",
        "  • line 6: rating is 'nan'; expected a number from 1 to 5",
        "  • line 7: audio is empty",
        "  • line 8: audio 'wavs/empty.wav' is not readable audio (too short: it contains no samples)",
    ]


def test_bad_comparisons_are_listed(folder):
    text = "audio_a,audio_b,preferred\nwavs/x.wav,wavs/y.wav,A\nwavs/x.wav,wavs/x.wav,a\nwavs/x.wav,wavs/y.wav,first\n"
    with pytest.raises(ValueError) as error:
        ratings(folder, text)
    assert "line 3: audio_a and audio_b are both 'wavs/x.wav'" in str(error.value)
    assert "line 4: preferred is 'first'; expected a, b or tie" in str(error.value)
    with pytest.raises(ValueError, match="line 2: difference is 'much'; expected a number, positive"):
        ratings(folder, "audio_a,audio_b,difference\nwavs/x.wav,wavs/y.wav,much\n")


def test_many_bad_rows_are_counted(folder):
    with pytest.raises(ValueError, match="has 30 rows(.|\n)*and 10 more"):
        ratings(folder, "audio,rating\n" + "wavs/x.wav,0\n" * 30)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("audio,score\nwavs/x.wav,3\n", "expected the columns audio_a.*present: audio, score"),
        ("audio_a,audio_b,preferred,difference\nwavs/x.wav,wavs/y.wav,a,1\n", "expected the columns"),
        ("audio,rating\n", "no row"),
        ("audio,rating\nwavs/x.wav,3\nwavs/x.wav,5\n", "no rater .*two recordings, so"),
        ("audio,rating,prompt\nwavs/x.wav,3,p\nwavs/y.wav,5,q\n", "two recordings of one prompt"),
        ("audio,rating\nwavs/x.wav,3\nwavs/y.wav,3\n", "all comparisons are ties"),
        ("audio_a,audio_b,preferred\nwavs/x.wav,wavs/y.wav,tie\n", "all comparisons are ties"),
    ],
)
def test_files_without_usable_comparisons_are_refused(folder, text, message):
    with pytest.raises(ValueError, match=message):
        ratings(folder, text)


def test_files_that_are_not_tables_are_refused(folder):
    with pytest.raises(ValueError, match="found no file"):
        read_ratings(folder / "gone.csv")
    with pytest.raises(ValueError, match="found a file with the ending .*xls"):
        ratings(folder, "", "ratings.xls")
    with pytest.raises(ValueError, match="JSONL file: line 2: "):
        ratings(folder, '{"audio": "wavs/x.wav", "rating": 1}\n{"audio"', "ratings.jsonl")
    with pytest.raises(ValueError, match="no object in line 1; expected"):
        ratings(folder, "[1]", "ratings.jsonl")
    (folder / "latin.csv").write_bytes("audio,rating\nGrün.wav,3\n".encode("latin-1"))
    with pytest.raises(ValueError, match="cannot be read.*expected UTF-8"):
        read_ratings(folder / "latin.csv")
