"""Recordings of a folder and of a manifest, and messages about bad ones."""

from __future__ import annotations

import errno
import json
import os
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


def test_a_folder_without_audio_lists_the_expected_endings(tmp_path: Path):
    with pytest.raises(
        ValueError, match="is empty; expected .aif, .aifc, .aiff, .flac, .mp3, .oga, .ogg, .opus, .wav in it"
    ):
        list_recordings(tmp_path)
    touch(tmp_path, "a.m4a", "b/c.m4a", "LICENSE")
    with pytest.raises(ValueError, match=r"no audio file; expected .*; 3 files left out: 2 .m4a, 1 without ending"):
        list_recordings(tmp_path)
    for missing in (tmp_path / "nowhere", tmp_path / "a.m4a"):
        with pytest.raises(ValueError, match=r"expected a folder or a manifest \(.csv, .tsv or .jsonl\); found"):
            list_recordings(missing)
        with pytest.raises(ValueError, match=r"a folder, a manifest \(.csv, .tsv or .jsonl\) or 'builtin'; found"):
            list_recordings(missing, "'builtin'")


def test_csv_and_jsonl_give_the_same_entries(tmp_path: Path):
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


def test_what_is_left_out_is_reported_once(tmp_path: Path, capsys):
    touch(tmp_path, "a.wav", "b.AIF", "c/d.aiff", *(f"{n}.m4a" for n in range(20)), "cover.jpg", "notes", ".hidden")
    os.mkfifo(tmp_path / "pipe.wav")
    for _ in range(2):
        assert [entry.name for entry in list_recordings(tmp_path)] == ["a.wav", "b.AIF", "c/d.aiff"]
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"folder '{tmp_path}': 3 recordings; 23 files left out: 20 .m4a, ")
    assert all(part in line for part in ("1 .jpg", "1 without ending", "1 .wav that is a device or a pipe"))


def test_nothing_is_reported_of_a_folder_without_other_files(tmp_path: Path, capsys):
    touch(tmp_path, "a.wav")
    list_recordings(tmp_path)
    assert capsys.readouterr().err == ""


def test_linked_folders_are_listed_once_and_loops_are_cut(tmp_path: Path):
    music, album = tmp_path / "music", tmp_path / "album"
    touch(album, "x.wav", "disc/y.wav")
    touch(music, "own/z.wav")
    for link, target in {"a": album, "again": album, "own/disc": album / "disc", "own/up": music, "b": "own"}.items():
        (music / link).symlink_to(target)
    (album / "back").symlink_to(music)
    (music / "self").symlink_to("self")
    assert [entry.name for entry in list_recordings(music)] == ["a/disc/y.wav", "a/x.wav", "own/z.wav"]


def test_an_unreadable_folder_is_reported(tmp_path: Path, capsys, monkeypatch):
    touch(tmp_path, "a.wav", "private/b.wav")
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "private":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert [entry.name for entry in list_recordings(tmp_path)] == ["a.wav"]
    line = capsys.readouterr().err
    assert f"1 recording; 1 folder that cannot be read: '{tmp_path / 'private'}' (Permission denied)" in line


def test_a_name_that_is_not_utf8_is_listed(tmp_path: Path):
    name = os.fsdecode(b"bad\xff.wav")
    touch(tmp_path, "a.wav", name)
    assert {entry.name for entry in list_recordings(tmp_path)} == {"a.wav", name}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.csv", "file,genre\na.wav,jazz\n", "no column 'path'; present: file, genre; .* such as path,name,genre"),
        ("m.csv", "path,name\n", "no row; .*below a header"),
        ("m.jsonl", "\n", "no row; .*per line"),
        ("m.csv", "path,name\na.wav,\n,b\n", "has 1 row that cannot be used; .*:\n  • line 3: the path is missing$"),
        ("m.csv", "path\na.wav\nno.wav\nnot.wav\n", r"line 3: .*no.wav' does not exist\n  • line 4: .*not.wav'"),
        ("m.csv", "path\n.\n", "line 2: .* is a folder, a device or a pipe"),
        ("m.csv", "path\n" + "x.wav\n" * 22, "has 22 rows(.|\n)* and 2 more"),
        ("m.csv", "path\na.wav\nb.wav\n./a.wav\n", "line 4: .*'./a.wav' is already in line 2"),
        ("m.csv", "path,name\na.wav,x\nb.wav,x\n", "line 3: .*'x' is already in line 2"),
        ("m.csv", 'path,name\na.wav,"x\ny"\nno.wav,z\n', "line 4: .*no.wav' does not exist"),
        ("m.jsonl", '{"path": "a.wav"}\n{path}\n', "JSONL file: line 2: "),
        ("m.jsonl", '{"path": "a.wav"}\n{"file": "b.wav"}\n', "line 2: the path is missing"),
        ("m.jsonl", '{"path": "a.wav"}\n{}\n', "line 2: the path is missing"),
        ("m.jsonl", '["a.wav"]\n', 'no object in line 1; .*{"path": "a.flac", '),
        ("m.csv", "path\n\xff\n", "cannot be read.*UTF-8"),
    ],
)
def test_bad_manifest_rows_are_listed_by_line(name: str, text: str, message: str, tmp_path: Path):
    touch(tmp_path, "a.wav", "b.wav")
    (tmp_path / name).write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=message):
        list_recordings(tmp_path / name)


def test_a_name_that_is_too_long_is_refused_by_line(tmp_path):
    (tmp_path / "m.csv").write_text(f"path\n{'n' * 5000}.wav\n")
    with pytest.raises(ValueError, match=r"line 2: the file '.*nnn\.wav' does not exist"):
        list_recordings(tmp_path / "m.csv")
