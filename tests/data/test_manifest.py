"""What a folder and a manifest list, and what is said of bad ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qd.data.manifest import Entry, list_recordings


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_folder_lists_all_audio_below_it(tmp_path: Path):
    touch(tmp_path, "b.MP3", "a/c.flac", "a/d/e.ogg", "a/f.wav", "cover.jpg", ".hidden/g.wav", "a/._f.wav", "h.opus")
    assert list_recordings(tmp_path) == [
        Entry(name, tmp_path / name, None) for name in ("a/c.flac", "a/d/e.ogg", "a/f.wav", "b.MP3", "h.opus")
    ]


def test_folder_without_audio_tells_what_was_looked_for(tmp_path: Path):
    with pytest.raises(ValueError, match="is empty; looked for .flac, .mp3, .oga, .ogg, .opus, .wav in it and"):
        list_recordings(tmp_path)
    touch(tmp_path, "a.m4a", "b/c.m4a", "LICENSE")
    with pytest.raises(ValueError, match=r"no audio file; looked for .*; found 2 .m4a, 1 \(none\)"):
        list_recordings(tmp_path)
    for missing in (tmp_path / "nowhere", tmp_path / "a.m4a"):
        with pytest.raises(ValueError, match=r"expected a folder or a manifest \(.csv or .jsonl\); found"):
            list_recordings(missing)
        with pytest.raises(ValueError, match=r"a folder, a manifest \(.csv or .jsonl\) or 'builtin'; found"):
            list_recordings(missing, "'builtin'")


def test_csv_and_jsonl_say_the_same(tmp_path: Path):
    touch(tmp_path, "x/a.wav", "x/b, live.flac", "c.mp3")
    rows = [
        {"path": "x/a.wav", "name": "first", "genre": "jazz"},
        {"path": "x/b, live.flac"},
        {"path": str(tmp_path / "c.mp3"), "genre": "rock"},
    ]
    expected = [
        Entry("first", tmp_path / "x/a.wav", "jazz"),
        Entry("x/b, live.flac", tmp_path / "x/b, live.flac", None),
        Entry(str(tmp_path / "c.mp3"), tmp_path / "c.mp3", "rock"),
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    text = f'\ufeffgenre, path,name\njazz,x/a.wav,first\n,"x/b, live.flac",\n\nrock,{tmp_path / "c.mp3"},\n'
    (tmp_path / "m.csv").write_text(text, encoding="utf-8")
    assert list_recordings(tmp_path / "m.jsonl") == expected
    assert list_recordings(str(tmp_path / "m.csv")) == expected


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.csv", "file,genre\na.wav,jazz\n", "no column 'path'; present: file, genre; .* such as path,name,genre"),
        ("m.csv", "path,name\n", "holds no row; expected one a row below the header"),
        ("m.jsonl", "\n", "holds no row; expected one a line"),
        ("m.csv", "path,name\na.wav,\n,b\n", "has 1 row that cannot be used; .*:\n  • line 3: it has no path$"),
        ("m.csv", "path\na.wav\nno.wav\nnot.wav\n", r"line 3: there is no file .*no.wav'\n  • line 4: .*not.wav'"),
        ("m.csv", "path\n" + "x.wav\n" * 22, "has 22 rows(.|\n)* and 2 more"),
        ("m.csv", "path\na.wav\nb.wav\n./a.wav\n", "line 4: line 2 has named the file './a.wav'"),
        ("m.csv", "path,name\na.wav,x\nb.wav,x\n", "line 3: line 2 has the name 'x'"),
        ("m.csv", 'path,name\na.wav,"x\ny"\nno.wav,z\n', "line 4: there is no file"),
        ("m.jsonl", '{"path": "a.wav"}\n{path}\n', "is no JSONL file: line 2: "),
        ("m.jsonl", '{"path": "a.wav"}\n{"file": "b.wav"}\n', "line 2: it has no path"),
        ("m.jsonl", '{"path": "a.wav"}\n{}\n', "line 2: it has no path"),
        ("m.jsonl", '["a.wav"]\n', 'holds no object in line 1; expected one such as {"path": "a.flac", '),
        ("m.csv", "path\n\xff\n", "cannot be read.*UTF-8"),
    ],
)
def test_bad_manifest_is_told_by_line(name: str, text: str, message: str, tmp_path: Path):
    touch(tmp_path, "a.wav", "b.wav")
    (tmp_path / name).write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=message):
        list_recordings(tmp_path / name)
