"""Bad inputs: tables of prompts, ratings and recordings, results files, and settings."""

# ruff: noqa: E501 (a bad input and its facts are one line)
from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from experiments.fault_attempt import CODE, Content, bad
from experiments.fault_audio import wave
from experiments.fault_case import Fault


def huge(path: Path) -> None:
    """Makes a file of 2 GiB without content."""
    with path.open("wb") as file:
        file.truncate(2**31)


PROMPTS: dict[str, tuple[str, Content, tuple[str, ...]]] = {
    "an unquoted comma": ("p.csv", "caption\nSlow jazz, with brass\nFast techno\n", ("line 2 (2)", "quotation marks")),
    "too few cells": ("p.csv", "id,caption\n1,A waltz\n2\n", ("line 3 (1)",)),
    "an open quotation mark": ("p.csv", 'caption\n"A slow jazz tune\nFast techno\nA waltz\n', ("line 2", "not closed")),
    "a bare quotation mark": ("p.csv", 'caption\nA "slow" tune\n', ("line 2", "double")),
    "a column named twice": ("p.csv", "caption,caption\na,b\n", ("'caption' twice", "line 1")),
    "semicolons": ("p.csv", "id;caption\n1;A waltz\n", ("';'", "line 1", "','")),
    "tabs in a CSV file": ("p.csv", "id\tcaption\n1\tA waltz\n", (".tsv",)),
    "commas in a TSV file": ("p.tsv", "id,caption\n1,A waltz\n", ("','", "line 1")),
    "no such column": ("p.csv", "title\nA waltz\n", ("title", "caption")),
    "only a header": ("p.csv", "caption\n", ("p.csv",)),
    "an empty file": ("p.txt", "", ("p.txt",)),
    "only blank lines": ("p.txt", "\n \n\t\n", ("p.txt",)),
    "UTF-16": ("p.csv", "caption\nA waltz\n".encode("utf-16"), ("UTF-16", "UTF-8")),
    "UTF-16 without a mark": ("p.txt", "A slow waltz\n".encode("utf-16-le"), ("UTF-16", "UTF-8")),
    "Windows-1252": ("p.txt", "A waltz\nUn café\n".encode("cp1252"), ("line 2", "Windows-1252", "UTF-8")),
    "a zero byte": ("p.txt", "A slow waltz for the piano, in three four time, and so on and on\na\0b\n", ("line 2",)),
    "a spreadsheet": ("p.csv", b"PK\x03\x04" + bytes(100), ("spreadsheet",)),
    "a gzip archive": ("p.csv", b"\x1f\x8b\x08" + bytes(50), ("gzip",)),
    "a JSON document": ("p.json", '[\n{"caption": "A waltz"}\n]\n', ("line 1", "JSONL")),
    "cut JSON": ("p.jsonl", '{"caption": "a"}\n{"caption": "b', ("line 2", "column")),
    "deep JSON": ("p.jsonl", "[" * 100_000 + "\n", ("line 1", "deep")),
    "a key named twice": ("p.jsonl", '{"caption": "a", "caption": "b"}\n', ("line 1", "'caption'", "twice")),
    "half of a surrogate pair": ("p.jsonl", '{"caption": "\\ud800"}\n', ("line 1",)),
    "a number as a prompt": ("p.jsonl", '{"caption": 7}\n', ("7 in line 1", "string")),
    "a number of 5,000 digits": ("p.jsonl", '{"caption": "a", "n": ' + "9" * 5000 + "}\n", ("line 1",)),
    "an unknown ending": ("p.xlsx", "A waltz\n", (".xlsx", "text:")),
    "a line without end": ("p.txt", "a" * 2**18, ("line 1", "131,072")),
    "2 GB": ("p.txt", huge, ("2,147,483,648 bytes",)),
    "a folder": ("p.txt/", "", ("folder",)),
    "a pipe that nobody writes": ("p.txt", lambda path: os.mkfifo(path), ("pipe",)),
    "a device": ("p.txt", lambda path: path.symlink_to("/dev/zero"), ("device",)),
    "a broken link": ("p.txt", lambda path: path.symlink_to("gone"), ("p.txt",)),
    "a link to itself": ("p.txt", lambda path: path.symlink_to("p.txt"), ("p.txt",)),
    "a name that moves the cursor": ("p\x1b[2J.csv", "caption\na,b\n", ("\\x1b", "line 2 (2)")),
    "a very long prompt": ("p.txt", "a waltz\n" + "jazz " * 2000 + "\n", ("line 2",)),
}
"""Name and content of a file of prompts, and facts of the answer."""

RATINGS: dict[str, tuple[str, Content, tuple[str, ...]]] = {
    "an unquoted comma": ("r.csv", "audio,rating\na.wav,4,5\n", ("line 2 (3)",)),
    "an open quotation mark": ("r.csv", 'audio,rating\n"a.wav,4\nb.wav,5\n', ("line 2", "not closed")),
    "a column named twice": ("r.csv", "audio,rating,rating\na.wav,4,5\n", ("'rating' twice",)),
    "an unknown preference": (
        "r.csv",
        "audio_a,audio_b,preferred\na.wav,b.wav,left\n",
        ("line 2", "'left'", "a, b or tie"),
    ),
    "a rating out of range": ("r.csv", "audio,rating\na.wav,9\nb.wav,3\n", ("line 2", "'9'", "1 to 5")),
    "a rating that is no number": ("r.csv", "audio,rating\na.wav,nan\nb.wav,3\n", ("line 2", "'nan'")),
    "a missing recording": ("r.csv", "audio,rating\nc.wav,4\nb.wav,3\n", ("line 2", "c.wav", "exist")),
    "a recording that is no audio": ("r.csv", "audio,rating\nr.csv,4\nb.wav,3\n", ("line 2", "r.csv")),
    "a recording with itself": ("r.csv", "audio_a,audio_b,preferred\na.wav,a.wav,a\n", ("line 2", "a.wav")),
    "only ties": ("r.csv", "audio_a,audio_b,preferred\na.wav,b.wav,tie\n", ("r.csv",)),
    "no known column": ("r.csv", "file,score\na.wav,4\n", ("audio", "rating")),
    "lists in JSONL": ("r.jsonl", '["a.wav", 4]\n', ("line 1", "object")),
    "UTF-16": ("r.csv", "audio,rating\na.wav,4\n".encode("utf-16"), ("UTF-16", "UTF-8")),
    "a text file": ("r.txt", "a.wav 4\n", (".txt", ".csv")),
    "a control character in a name": ("r.csv", "audio,rating\n\x1b[2J.wav,4\nb.wav,3\n", ("line 2", "\\x1b")),
    "no file": ("other.csv", "", ("r.csv", "no file")),
}

MANIFESTS: dict[str, tuple[str, Content, tuple[str, ...]]] = {
    "an unquoted comma": ("m.csv", "path\na, b.wav\n", ("line 2 (2)",)),
    "no column path": ("m.csv", "file\na.wav\n", ("'path'", "file")),
    "a missing file": ("m.csv", "path\nnowhere.wav\n", ("line 2", "nowhere.wav")),
    "a file named twice": ("m.csv", "path\na.wav\n./a.wav\n", ("line 3", "line 2")),
    "a name used twice": ("m.csv", "path,name\na.wav,x\nb.wav,x\n", ("line 3", "'x'", "line 2")),
    "a folder as a file": ("m.csv", "path\n.\n", ("line 2", "folder")),
    "an empty path": ("m.csv", "path,genre\n,jazz\n", ("line 2", "missing")),
    "an open quotation mark": ("m.csv", 'path\n"a.wav\nb.wav\n', ("line 2", "not closed")),
    "a name of 5,000 letters": ("m.csv", f"path\n{'a' * 5000}.wav\n", ("line 2",)),
    "no object": ("m.jsonl", '"a.wav"\n', ("line 1", "object")),
}

SETTINGS: dict[str, tuple[str, tuple[str, ...]]] = {
    "a secret of the environment": ("'policy.x=${oc.env:HOME}'", ("oc.env", "not read")),
    "a secret within a text": ("'guidance.negative_prompt=a ${oc.env:HOME}'", ("guidance.negative_prompt", "not read")),
    "a nested secret": ("'name=${${x}}'", ("name",)),
    "an interpolation of nothing": ("'name=${nothing}'", ("nothing",)),
    "an interpolation of itself": ("'name=${name}'", ("name",)),
    "an interpolation that is not closed": ("'name=${'", ("name",)),
    "an unknown setting": ("trainer.max_step=3", ("trainer.max_step", "trainer.max_steps")),
    "a text for a number": ("trainer.max_steps=many", ("trainer.max_steps", "'many'", "integer")),
    "a negative number": ("trainer.max_steps=-1", ("trainer.max_steps", "-1")),
    "no finite number": ("beta=nan", ("beta", "nan")),
    "an infinite number": ("beta=inf", ("beta", "inf")),
    "a group for a value": ("beta.x=1", ("beta",)),
    "a value for a group": ("trainer=3", ("trainer", "group")),
    "no value": ("=3", ("'=3'", "key=value")),
    "a word without =": ("beta", ("'beta'", "key=value")),
    "invalid YAML": ("'beta=[1'", ("beta=[1",)),
    "deep YAML": ("'beta=" + "[" * 3000 + "'", ("beta",)),
    "an object of Python": ("'name=!!python/object/apply:os.system [touch executed]'", ("name",)),
    "an index of a list": ("'data.prompts[0].path=x'", ("data.prompts",)),
    "a batch of no multiple": ("data.batch_size=7", ("batch_size", "7")),
    "an unknown device": ("trainer.device=tpu", ("trainer.device", "tpu")),
    "an unknown precision": ("trainer.precision=8", ("trainer.precision", "8")),
    "an unknown option": ("--betta 3", ("--betta", "did you mean --beta", "BETA")),
    "a config that does not exist": ("--config nowhere", ("nowhere", "quick")),
    "a config outside": ("--config ../../../etc/passwd", ("passwd",)),
    "an option without value": ("--name", ("--name",)),
    "a name of a run with a slash": ("--name ../x", ("name", "../x")),
    "a name of a run with a control character": ("'--name=a\x1b[2Jb'", ("name", "\\x1b")),
    "a name of a run that is too long": (f"--name {'n' * 300}", ("name", "long")),
    "an empty name of a run": ("--name ''", ("name",)),
}
"""Words after ``qd train --beta 0 --dry-run``."""

CONFIGS: dict[str, tuple[Content, tuple[str, ...]]] = {
    "an object of Python": ("name: !!python/object/apply:os.system ['touch executed']\n", ("c.yaml",)),
    "a secret": ("name: a\nguidance:\n  negative_prompt: ${oc.env:HOME}\n", ("c.yaml", "negative_prompt", "not read")),
    "a key named twice": ("beta: 1\nbeta: 2\n", ("c.yaml", "beta")),
    "a list": ("- beta\n", ("c.yaml", "list")),
    "a number": ("3\n", ("c.yaml",)),
    "a circle of extends": ("extends: c.yaml\n", ("c.yaml", "extends itself")),
    "an alias bomb": (
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(
            f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdef", "bcdefg", strict=True)
        ),
        ("c.yaml",),
    ),
    "tabs": ("trainer:\n\tmax_steps: 3\n", ("c.yaml", "line 2")),
    "no UTF-8": (b"name: caf\xe9\n", ("c.yaml",)),
    "a folder": (lambda path: path.mkdir(), ("c.yaml",)),
    "a device": (lambda path: path.symlink_to("/dev/zero"), ("c.yaml", "device")),
    "a pipe that nobody writes": (lambda path: os.mkfifo(path), ("c.yaml", "pipe")),
    "2 GB": (huge, ("c.yaml",)),
}

POINTS: dict[str, tuple[Content, tuple[str, ...]]] = {
    "an empty file": ("", ("p.jsonl",)),
    "no JSON": ("{}\nhello\n", ("p.jsonl", "line 1")),
    "a list": ("[1]\n", ("p.jsonl", "line 1")),
    "deep JSON": ("[" * 100_000 + "\n", ("p.jsonl", "line 1")),
    "no UTF-8": (b'{"key": "\xff"}\n', ("p.jsonl",)),
    "a folder": (lambda path: path.mkdir(), ("p.jsonl is a folder",)),
    "a device": (lambda path: path.symlink_to("/dev/zero"), ("p.jsonl",)),
    "a pipe that nobody writes": (lambda path: os.mkfifo(path), ("p.jsonl",)),
}


def faults() -> Iterator[Fault]:
    """Yields the bad tables, settings, configs and results files."""
    for name, (file, content, facts) in PROMPTS.items():
        yield bad("bad table of prompts", name, f"train --beta 0 --dry-run --prompts '{file.rstrip('/')}'", *facts,
                  files={file: content})  # fmt: skip
    sounds = {"a.wav": wave(1), "b.wav": wave(2)}
    for name, (file, content, facts) in RATINGS.items():
        asked = file if file.startswith("r.") else "r.csv"
        yield bad("bad table of ratings", name, f"train-preference --data {asked} --device cpu --out out", *facts,
                  files={file: content, **sounds})  # fmt: skip
    for name, (file, content, facts) in MANIFESTS.items():
        yield bad("bad manifest", name, f"fad --audio {file} --device cpu --out fad.json", *facts,
                  files={file: content, **sounds})  # fmt: skip
    for name, (words, facts) in SETTINGS.items():
        yield bad("bad setting", name, f"train --beta 0 --dry-run {words}", *facts)
    for name, (content, facts) in CONFIGS.items():
        yield bad("bad config", name, "train --beta 0 --dry-run --config c.yaml", *facts, files={"c.yaml": content})
    for name, (content, facts) in POINTS.items():
        for line in ("report --points p.jsonl --out out", "pick --points p.jsonl --diversity 0.4 --out out"):
            yield bad("bad results file", f"{name}: {line.split()[0]}", line, *facts, files={"p.jsonl": content})
    yield bad("bad config", "code beside it", "train --beta 0 --dry-run trainer.max_steps=x", "trainer.max_steps",
              files={"omegaconf.py": CODE, "yaml.py": CODE, "sitecustomize.py": CODE})  # fmt: skip
