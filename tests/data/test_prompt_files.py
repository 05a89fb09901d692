from __future__ import annotations

import pytest

from qd.data.prompt_files import MAX_CHARACTERS, read_prompts


@pytest.fixture
def write(tmp_path):
    def write(content: bytes | str, name: str = "prompts.txt"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_lines_are_stripped_and_blank_ones_skipped(write):
    assert read_prompts(write("\ufeffcalm piano  \r\n\n  \n\tschöne Geige")) == ["calm piano", "schöne Geige"]


def test_a_column_is_read_with_its_quoting(write):
    path = write('\ufeffid,text\n1," slow, ""sad"" piano "\n2,\n3,"two\nlines"\n4\n', "a.csv")
    assert read_prompts(path, "text") == ['slow, "sad" piano', "two\nlines"]


def test_a_missing_column_lists_those_present(write):
    with pytest.raises(ValueError, match="no column 'caption'; present: id, text"):
        read_prompts(write("id,text\n1,x\n"), "caption")


@pytest.mark.parametrize(("content", "column"), [("", None), ("\n \n", None), ("text\n\n", "text")])
def test_a_file_without_prompts_is_refused(write, content, column):
    with pytest.raises(ValueError, match="holds no prompt"):
        read_prompts(write(content), column)


def test_an_empty_csv_has_no_columns(write):
    with pytest.raises(ValueError, match="present: none"):
        read_prompts(write(""), "text")


def test_what_is_no_text_file_is_refused(write, tmp_path):
    for path in (write(b"\xff\xfe\x00"), tmp_path / "none.txt", tmp_path):
        with pytest.raises(ValueError, match=f"{path.name}.*cannot be read"):
            read_prompts(path)


def test_long_lines_are_named_by_number(write):
    long = "x" * (MAX_CHARACTERS + 1)
    with pytest.raises(ValueError, match=r"line 2 \(2,001\), line 4 \(2,001\); shorten"):
        read_prompts(write(f"ok\n{long}\nok\n{long}\n{'x' * MAX_CHARACTERS}\n"))
    with pytest.raises(ValueError, match=r"line 3 \(2,001\) and|line 3 \(2,001\);"):
        read_prompts(write(f"text\nok\n{long}\n", "a.csv"), "text")
    with pytest.raises(ValueError, match="and 2 more"):
        read_prompts(write(f"{long}\n" * 7))
