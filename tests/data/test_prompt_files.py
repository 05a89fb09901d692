from __future__ import annotations

import json

import pytest

from qd.data.prompt_files import GENERIC, PromptFile, Prompts

MUSICCAPS = (
    "ytid,start_s,end_s,audioset_positive_labels,aspect_list,caption,author_id,is_balanced_subset,is_audioset_eval"
)
SONG_DESCRIBER = (
    "caption_id,track_id,caption,is_valid_subset,familiarity,artist_id,album_id,path,duration,"
    "genre,instrument,mood/theme"
)


@pytest.fixture
def write(tmp_path):
    def write(content: bytes | str, name: str = "prompts.txt"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    return write


def read(path: str, kind: str = "text", column: str | None = None) -> Prompts:
    return PromptFile(kind, path, column).read()


def test_lines_are_stripped_and_blank_ones_skipped(write):
    prompts = read(write("\ufeffcalm piano  \r\n\n  \n\tschöne Geige"))
    assert (prompts.texts, prompts.lines, prompts.empty) == (["calm piano", "schöne Geige"], [1, 4], [2, 3])


def test_a_column_is_read_with_its_quoting(write):
    path = write('\ufeffid,text\n1," slow, ""sad"" piano "\n\n2,\n3,"two\nlines"\n4,\n5,end\n', "a.csv")
    prompts = read(path, "csv", "text")
    assert prompts.texts == ['slow, "sad" piano', "two\nlines", "end"]
    assert (prompts.lines, prompts.empty) == ([2, 5, 8], [4, 7])


def test_json_lines_contain_objects_or_strings(write):
    rows = [{"id": 1, "caption": "calm\u2028piano"}, "fast drums", {"caption": None}, {"caption": " end "}]
    path = write("\n".join([*(json.dumps(row, ensure_ascii=False) for row in rows), "", ""]), "a.jsonl")
    prompts = read(path, "jsonl")
    assert prompts.texts == ["calm\u2028piano", "fast drums", "end"]
    assert (prompts.lines, prompts.empty) == ([1, 2, 4], [3, 5])
    assert read(write('{"a": "x", "text": "y"}\n', "b.jsonl"), "jsonl", "a").texts == ["x"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a"}\n{"text": \n', "JSONL file: line 2: "),
        ('{"text": "a"}\n{"title": "b"}\n', r"no column 'prompt' or 'caption' or 'text'; present: title; .*\(line 2\)"),
        ('"a"\n{"text": 3}\n', "3 in line 2; expected a string"),
        ("[1]\n", r"\[1\] in line 1"),
    ],
)
def test_a_damaged_json_line_is_reported(write, content, message):
    with pytest.raises(ValueError, match=message):
        read(write(content, "a.jsonl"), "jsonl")


def test_texts_that_differ_only_in_case_and_white_space_are_repeats(write):
    prompts = read(write("Calm Piano\nfast drums\ncalm  piano\nFAST drums \nStraße\nstrasse\n"))
    assert prompts.texts == ["Calm Piano", "fast drums", "Straße"]
    assert prompts.repeated == [3, 4, 6]


def test_skipped_prompts_are_listed_by_line(write):
    path = write("a\n\nb\n" + "A\n" * 7)
    assert read(path).summary() == (
        f"prompt file {path!r}: 2 prompts; 1 empty (line 2); 7 repeated (lines 4, 5, 6, 7, 8 and 2 more)"
    )
    assert read(write("a\n")).summary().endswith(": 1 prompt")


def test_published_musiccaps_file_is_read(write):
    rows = '-0Gj8-vB1q4,30,40,"/m/0140xf,/m/02cjck","[\'sad\', \'strings\']","A slow, sad song.",4,False,True\n'
    path = write(f"{MUSICCAPS}\n{rows}", "musiccaps-public.csv")
    expected = ["A slow, sad song."]
    assert read(path, "musiccaps").texts == read(path, "csv").texts == expected
    with pytest.raises(ValueError, match="song-describer file: .*no column 'caption_id', 'track_id', 'is_va"):
        read(path, "song-describer")


def test_only_validated_captions_of_song_describer_are_used(write):
    row = "{n},1004034,{text},{valid},0,artist_1,album_1,34/1004034.mp3,213.4,['rock'],[],[]"
    rows = [row.format(n=n, text=text, valid=valid) for n, text, valid in [(1, "Calm", True), (2, "Loud", False)]]
    path = write("\n".join([SONG_DESCRIBER, *rows]), "song_describer.csv")
    prompts = read(path, "song-describer")
    assert prompts.texts == ["Calm"] and prompts.summary().endswith("1 prompt; 1 not validated and left out")
    assert read(path, "csv").texts == ["Calm", "Loud"]


def test_a_missing_column_lists_those_present(write):
    with pytest.raises(ValueError, match=r"no column 'caption'; present: id, words; name one: <file>:<column>"):
        read(write("id,words\n1,x\n"), "csv", "caption")
    with pytest.raises(ValueError, match="no column 'prompt' or 'caption' or 'text'; present: none"):
        read(write(""), "csv")
    with pytest.raises(ValueError, match="musiccaps file: .*no column 'ytid', 'aspect_list'"):
        read(write("caption\nx\n"), "musiccaps")


@pytest.mark.parametrize(("content", "kind"), [("", "text"), ("\n \n", "text"), ("text\n\n", "csv"), ("\n", "jsonl")])
def test_a_file_without_prompts_is_refused(write, content, kind):
    with pytest.raises(ValueError, match="contains no prompt"):
        read(write(content), kind)


def test_a_file_that_is_not_text_is_refused(write, tmp_path):
    for path in (write(b"\xff\xfe\x00"), str(tmp_path / "none.txt"), str(tmp_path)):
        with pytest.raises(ValueError, match=r"prompt file .* cannot be read"):
            read(path)
    with pytest.raises(ValueError, match="more than 131,072 characters in line 2"):
        read(write(f'text\n"{"x" * 200_000}"\n'), "csv")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.txt", ("text", "a.txt", None)),
        ("my list", ("text", "my list", None)),
        ("a.csv", ("csv", "a.csv", None)),
        ("b/a.CSV:the text", ("csv", "b/a.CSV", "the text")),
        ("a.jsonl", ("jsonl", "a.jsonl", None)),
        ("a.jsonl:key", ("jsonl", "a.jsonl", "key")),
        ("a.tsv:words", ("tsv", "a.tsv", "words")),
        ("a.json", ("jsonl", "a.json", None)),
        ("text:a.md", ("text", "a.md", None)),
        ("musiccaps:a.csv", ("musiccaps", "a.csv", None)),
        ("song-describer:a.csv", ("song-describer", "a.csv", None)),
        ("csv:table", ("csv", "table", None)),
        ("jsonl:a.jsonl:key", ("jsonl", "a.jsonl", "key")),
        ("C:\\a.csv", ("csv", "C:\\a.csv", None)),
        ("C:\\a.csv:words", ("csv", "C:\\a.csv", "words")),
        ("generic", ("generic", None, None)),
        ("builtin", ("builtin", None, None)),
    ],
)
def test_an_argument_is_parsed_into_format_file_and_column(text, expected):
    assert PromptFile.parse(text) == expected


@pytest.mark.parametrize("name", ["a.md", "b/prompts.xlsx", "a.txt.gz", "a.md:caption"])
def test_an_unknown_ending_is_refused_with_what_would_be_read(name):
    with pytest.raises(ValueError, match=rf"{name}.* ending .*\.txt .*\.csv, \.tsv or \.jsonl; .*text:{name}"):
        PromptFile.parse(name)


def test_a_tsv_file_is_read_by_tab_and_a_json_document_is_refused(write):
    assert PromptFile.parse(write("id\tcaption\n1\tSlow, calm jazz\n", "t.tsv")).read().texts == ["Slow, calm jazz"]
    assert PromptFile.parse(write('{"caption": "Jazz"}\n', "lines.json")).read().texts == ["Jazz"]
    with pytest.raises(ValueError, match="p.json' is not a JSONL file: line 1: .* one JSON value per line"):
        PromptFile.parse(write('[\n  {"caption": "Jazz"}\n]\n', "p.json")).read()
    with pytest.raises(ValueError, match=r"p.json' contains \[.* in line 1; expected a string"):
        PromptFile.parse(write('[{"caption": "Jazz"}]', "p.json")).read()


def test_the_generic_prompts_are_short_and_distinct():
    prompts = PromptFile("generic").read()
    assert len(prompts.texts) == 104 and prompts.lines[-1] == 104 and not prompts.repeated
    assert max(len(text) for text in prompts.texts) <= 40
    assert GENERIC.parent.name == "data"


def test_the_grammar_is_not_a_list():
    with pytest.raises(ValueError, match="grammar .*generic"):
        PromptFile.parse("builtin").read()
