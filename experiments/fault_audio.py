"""Bad inputs: audio files and folders, names and paths, variables of make and of the environment, and HTML."""

# ruff: noqa: E501 (a bad input and its facts are one line)
from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile

from experiments.fault_attempt import ROOT, Content, bad
from experiments.fault_case import Fault

RATE = 16_000
LONG = "n" * 300
FAD = "fad --audio aud --reference ref --device cpu --out fad.json"


def sound(seed: int, seconds: float = 6.0) -> np.ndarray:
    """Quiet noise, ``(samples,)``."""
    return 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))


def wave(seed: int, kind: str = "WAV", *, subtype: str | None = None, gain: float = 1.0) -> bytes:
    """The bytes of an audio file."""
    file = io.BytesIO()
    soundfile.write(file, gain * sound(seed), RATE, subtype, format=kind)
    return file.getvalue()


def several(folder: str, count: int = 6) -> dict[str, Content]:
    """Recordings of a folder."""
    return {f"{folder}/{number}.wav": wave(number) for number in range(count)}


def _not_finite() -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.full(RATE, np.nan), RATE, "FLOAT", format="WAV")
    return file.getvalue()


def _empty_wave() -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(0), RATE, format="WAV")
    return file.getvalue()


def _loop(path: Path) -> None:
    path.mkdir()
    (path / "again").symlink_to("..")


def _no_utf8(path: Path) -> None:
    with open(os.fsencode(path.parent) + b"/bad\xff.wav", "wb") as file:
        file.write(wave(7))


BAD_AUDIO: dict[str, tuple[dict[str, Content], tuple[str, ...]]] = {
    "a WAV file cut in half": (
        {"aud/x.wav": wave(1)[: len(wave(1)) // 2]},
        ("x.wav", "truncated", "95,978 of 192,000"),
    ),
    "a FLAC file cut in half": ({"aud/x.flac": wave(1, "FLAC")[:20_000]}, ("x.flac",)),
    "an empty file": ({"aud/x.wav": b""}, ("x.wav", "empty")),
    "a text under another name": ({"aud/x.wav": "hello\n"}, ("x.wav",)),
    "no sample": ({"aud/x.wav": _empty_wave()}, ("x.wav",)),
    "samples that are not finite": ({"aud/x.wav": _not_finite()}, ("x.wav", "finite")),
    "float samples up to 32,768": ({"aud/x.wav": wave(1, subtype="FLOAT", gain=3e5)}, ("x.wav", "wrong scale")),
    "a broken link": ({"aud/x.wav": lambda path: path.symlink_to("gone.wav")}, ("x.wav",)),
    "a folder with the ending .wav": ({"aud/x.wav/": "", "aud/x.wav/y.txt": "a"}, ("aud", ".txt")),
    "an empty folder": ({"aud/": ""}, ("aud", "empty")),
    "no audio file": ({"aud/a.txt": "a", "aud/b.m4a": "b"}, ("aud", "1 .txt", "1 .m4a", ".wav")),
    "a pipe that nobody writes": ({"aud/x.wav": lambda path: os.mkfifo(path)}, ("aud", "pipe")),
    "a name that moves the cursor": ({"aud/\x1b[2J.wav": "hello\n"}, ("\\x1b",)),
    "a git-lfs pointer": (
        {"aud/x.wav": "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"},
        ("x.wav", "git-lfs", "git lfs pull"),
    ),
    "too little audio": ({"aud/x.wav": wave(1)}, ("expected 10",)),
}

GOOD_AUDIO: dict[str, tuple[dict[str, Content], tuple[str, ...]]] = {
    "a name that is not UTF-8": ({"aud/x.wav": _no_utf8}, ()),
    "other endings": ({"aud/a.aiff": wave(1, "AIFF"), "aud/b.m4a": "b", "aud/c.m4a": "c"}, ("7 recordings", "2 .m4a")),
    "a loop of links": ({"aud/": _loop} | {}, ()),
    "a link to a folder": ({"aud/album": lambda path: path.symlink_to("../ref")}, ()),
}

PATHS: dict[str, tuple[str, dict[str, Content], tuple[str, ...]]] = {
    "fad: a name too long": (f"fad --audio ref --reference ref --out {LONG}.json", {}, ("long",)),
    "fad: a folder that cannot be made": ("fad --audio ref --reference ref --out /proc/qd/fad.json", {}, ("/proc/qd",)),
    "fad: a file in the way": ("fad --audio ref --reference ref --out x/fad.json", {"x": "a"}, ("x", "file")),
    "fad: a results file that exists": (
        "fad --audio ref --reference ref --out x.json",
        {"x.json": "a"},
        ("x.json", "exists"),
    ),
    "sample: a name too long": (f"sample --prompt x --n 1 --out {LONG}", {}, ("long",)),
    "sample: a file in the way": ("sample --prompt x --n 1 --out x", {"x": "a"}, ("x",)),
    "sample: a folder that cannot be made": ("sample --prompt x --n 1 --out /proc/qd", {}, ("/proc/qd",)),
    "sample: an empty prompt": ("sample --prompt '' --n 1 --out out", {}, ("prompt",)),
    "sample: no clip": ("sample --prompt x --n 0 --out out", {}, ("n is 0",)),
    "sample: a length without end": ("sample --prompt x --seconds inf --out out", {}, ("seconds", "inf")),
    "sample: no length": ("sample --prompt x --seconds nan --out out", {}, ("seconds", "nan")),
    "sample: a thousand hours": ("sample --prompt x --seconds 3600000 --out out", {}, ("seconds",)),
    "sample: a billion clips": ("sample --prompt x --n 1000000000 --out out", {}, ("1000000000 clips", "GiB")),
    "sample: no temperature": ("sample --prompt x --temperature 0 --out out", {}, ("temperature", "0")),
    "sample: a prompt of 100,000 letters": (f"sample --prompt {'a' * 100_000} --n 1 --out out", {}, ("prompt",)),
    "sample: a prompt that is not UTF-8": ("sample --prompt '\udcff' --n 1 --out out", {}, ("udcff", "UTF-8")),
    "train: a file in the way of the runs": ("train --beta 0 --name x trainer.runs=f", {"f": "a"}, ("'f", "file")),
    "train: runs that cannot be made": ("train --beta 0 --name x trainer.runs=/proc/qd", {}, ("/proc/qd",)),
    "train: a run that exists": ("train --beta 0 --name x", {"runs/x/config.yaml": "a: 1\n"}, ("runs/x", "RESUME")),
    "train: a file of the run's name": ("train --beta 0 --name x", {"runs/x": "a"}, ("runs/x",)),
    "evaluate: a folder as the results file": ("evaluate --model base --out x", {"x/": ""}, ("x", "folder")),
    "evaluate: a file in the way": ("evaluate --model base --out x/p.jsonl", {"x": "a"}, ("x", "file")),
    "evaluate: an unknown home": ("evaluate --model '~nobody-of-that-name/x'", {}, ("~nobody-of-that-name",)),
    "merge: a file in the way": ("merge --a base --b beta0 --out x", {"x": "a"}, ("x",)),
    "merge: a folder that exists": ("merge --a base --b beta0 --out x", {"x/y": "a"}, ("x",)),
    "merge: a weight above 1": ("merge --a base --b beta0 --lambda 7 --out x", {}, ("7",)),
    "merge: a folder that cannot be made": ("merge --a base --b beta0 --out /proc/qd", {}, ("/proc",)),
    "report: no results": ("report --points nowhere.jsonl --out out", {}, ("nowhere.jsonl",)),
    "embedder-report: a file in the way": ("embedder-report --embedder builtin --out x", {"x": "a"}, ("x",)),
    "train-preference: a file in the way": (
        "train-preference --data r.csv --out x",
        {"x": "a", "r.csv": "audio,rating\n"},
        ("x",),
    ),
    "train-embedder: no data": ("train-embedder --data nowhere", {}, ("nowhere",)),
    "headroom: a file in the way": ("headroom --beta 0 --out x", {"x": "a"}, ("x",)),
}

ENVIRONMENT: dict[str, tuple[str, dict[str, str], tuple[str, ...]]] = {
    "RANK in a command of one process": ("sample --prompt x", {"RANK": "1"}, ("RANK=1", "unset RANK")),
    "SLURM_PROCID in a command of one process": ("merge --a base --b beta0", {"SLURM_PROCID": "2"}, ("SLURM_PROCID",)),
    "WORLD_SIZE left over": (
        "evaluate --model base --protocol quick",
        {
            "RANK": "0",
            "WORLD_SIZE": "2",
            "LOCAL_RANK": "0",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": "29611",
        },
        ("WORLD_SIZE=2", "120 s", "unset RANK"),
    ),
    "WORLD_SIZE that is no number": ("evaluate --model base", {"WORLD_SIZE": "two", "RANK": "0"}, ("WORLD_SIZE",)),
    "RANK that is no number": ("train --beta 0", {"WORLD_SIZE": "2", "RANK": "x"}, ("RANK",)),
}

MAKE = ("PROMPT", "MODEL", "OUT", "NAME", "ARGS", "top_k", "trainer.max_steps", "PYTHON", "CONFIG", "KIND")
SHELL = "$(shell touch executed)`touch executed`$$(touch executed)"


def stand_in(path: Path) -> None:
    """Makes a folder in which ``make`` finds everything installed, and ``qd`` prints its arguments."""
    path.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "Makefile", path.parent.parent)
    for name, text in {
        "qd": f"#!{sys.executable}\nimport sys\nprint(*sys.argv[1:])\n",
        "python": f'#!/bin/sh\nexec {sys.executable} "$@"\n',
    }.items():
        (path / name).write_text(text)
        (path / name).chmod(0o755)
    for name in ("pyproject.toml", "constraints.txt", ".venv/installed"):
        (path.parent.parent / name).touch()


def faults() -> Iterator[Fault]:
    """Yields the bad recordings, paths and variables."""
    reference = several("ref")
    for name, (files, facts) in BAD_AUDIO.items():
        yield bad("bad recording", name, FAD, *facts, files={**files, **reference})
    for name, (files, facts) in GOOD_AUDIO.items():
        yield bad("odd recording", name, FAD, "fad", *facts, files={**files, **several("aud"), **reference}, status=0)
    for name, (line, files, facts) in PATHS.items():
        yield bad("bad name or path", name, line, *facts, files={**files, **reference})
    yield bad("bad name or path", "a home folder in OUT", "fad --audio ~/ref --reference ~/ref --device cpu --out ~/f.json",
              "fad", files={f"home/{name}": content for name, content in reference.items()}, status=0,
              environment={"HOME": "home"})  # fmt: skip
    for name, (line, environment, facts) in ENVIRONMENT.items():
        yield bad("left-over variable", name, line, *facts, environment=environment)
    yield from _make_faults()


def _make_faults() -> Iterator[Fault]:
    programs: dict[str, Callable[[Path], None]] = {".venv/bin/": stand_in}
    environment = {"MAKEFLAGS": "", "MAKELEVEL": "0", "MFLAGS": ""}
    for name in MAKE:
        facts = ("$(shell touch executed)",) if name not in ("PYTHON", "KIND") else ()
        target = "config" if name == "KIND" else "sample"
        yield bad("bad variable of make", name, f"{target} '{name}={SHELL}'", *facts, files=programs, status=0,
                  environment=environment, program=("make",))  # fmt: skip
    yield bad("bad variable of make", "an open quotation mark in ARGS", "sample \"ARGS='a\"", "ARGS", files=programs,
              environment=environment, program=("make",))  # fmt: skip
