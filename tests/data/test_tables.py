"""Tables that would be read as something else are refused, in prompts, ratings and manifests alike."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from qd.data.manifest import list_recordings
from qd.data.prompt_files import PromptFile
from qd.data.ratings import read_ratings
from qd.data.tables import MAX_BYTES, MAX_LINE

READERS = {
    "prompts": (lambda path: PromptFile.parse(str(path)).read(), "caption", "prompt file"),
    "manifest": (list_recordings, "path", "manifest"),
    "ratings": (read_ratings, "audio", "ratings"),
}


@pytest.fixture(params=READERS)
def refused(request, tmp_path: Path):
    """Writes a table, whose column COLUMN becomes one that the reader needs, and matches the error message."""
    read, column, what = READERS[request.param]

    def refused(content: str | bytes, message: str, name: str = "table.csv") -> None:
        data = content.replace("COLUMN", column).encode() if isinstance(content, str) else content
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=message) as error:
            read(tmp_path / name)
        assert str(error.value).startswith(f"{what} '{tmp_path / name}' ")

    refused.read, refused.folder = read, tmp_path
    return refused


def test_rows_with_more_or_fewer_cells_than_the_header_are_listed(refused):
    text = "COLUMN\nslow, calm\nx\nfast, loud, dark\n"
    refused(text, r"header, 1: line 2 \(2\), line 4 \(3\); .* contains ',' in quotation marks")
    refused("id,COLUMN\n1,x\n\n2\n", r"header, 2: line 4 \(1\)")
    refused("id\tCOLUMN\n1\tx\ty\n", r"header, 2: line 2 \(3\)", "table.tsv")


def test_an_open_or_bare_quotation_mark_is_refused_by_line(refused):
    refused('id,COLUMN\n0,x\n1,"A slow tune\n2,A folk song\n', "quotation mark in line 3 that is not closed")
    refused('id,COLUMN\n1,"A slow tune\n2,"A folk song"\n', "quotation mark in line 2 that is not closed")
    refused('id,COLUMN\n1,"a "slow" tune"\n', "quotation mark in line 2")
    refused('id,COLUMN\n1,x\n2,a "slow" tune\n', "quotation mark within a cell in line 3; .* double")
    refused('id,COLUMN\n1, "slow, calm"\n', "quotation mark within a cell in line 2")


def test_a_header_that_names_a_column_twice_is_refused(refused):
    refused("COLUMN, COLUMN\na,b\n", "the column '.*' twice in its header")
    refused('{"COLUMN": "a", "COLUMN": "b"}\n', "line 1: the key '.*' is named twice", "table.jsonl")


@pytest.mark.parametrize("mark", [";", "\t"])
def test_another_delimiter_is_named(refused, mark):
    refused(f"id{mark}COLUMN\n1{mark}x\n", rf"by {mark!r} in line 1; expected ','".replace("\\", "\\\\"))


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("utf-16", "UTF-16 text; expected UTF-8"),
        ("utf-16-le", "UTF-16 text or no text at all: it contains zero bytes"),
        ("cp1252", "line 3 has the byte 0xE9, which is no UTF-8 \\('é' in Windows-1252"),
    ],
)
def test_another_encoding_is_named(refused, encoding, message):
    refused("caption,path,audio\na,b,c\ncafé,b,c\n".encode(encoding), message)


def test_blank_lines_and_a_comma_in_the_only_header_are_no_faults(tmp_path):
    (tmp_path / "a.csv").write_text('\n\n"caption, English"\n\nx\n')
    assert PromptFile.parse(f"{tmp_path / 'a.csv'}:caption, English").read().texts == ["x"]


def test_a_spreadsheet_under_another_name_is_named(refused):
    refused(b"PK\x03\x04" + bytes(100), "a ZIP archive or a spreadsheet")


def test_json_that_no_program_can_use_is_refused(refused):
    refused('{"COLUMN": "x"}\n' + "[" * 50_000, "line 2: .*nested too deeply", "table.jsonl")
    refused('{"COLUMN": "\\ud800"}\n', "line 1: .*surrogate", "table.jsonl")
    refused('{"COLUMN": ' + "9" * 5_000 + "}", "line 1: ", "table.jsonl")


def test_what_never_ends_is_refused_at_once(refused):
    start, large, pipe = time.monotonic(), refused.folder / "large.csv", refused.folder / "pipe.csv"
    refused("COLUMN\n" + "x" * (MAX_LINE + 1), f"more than {MAX_LINE:,} characters in line 2")
    with large.open("wb") as file:
        file.truncate(2**31)
    os.mkfifo(pipe)
    zero = refused.folder / "zero.csv"
    zero.symlink_to("/dev/zero")
    for path, message in ((large, f"expected at most {MAX_BYTES:,}"), (pipe, "a pipe"), (zero, "a device")):
        with pytest.raises(ValueError, match=message):
            refused.read(path)
    assert time.monotonic() - start < 5
