from __future__ import annotations

import numpy as np
import pytest
import soundfile

from qd.commands.sample import sample
from qd.config.loading import ConfigError
from qd.models.musicgen import MusicGen
from tests.runs.full_disk import full_disk

SECONDS = 0.32


def clips_of(folder) -> list[np.ndarray]:
    files = sorted(folder.glob("*.wav"))
    assert [file.name for file in files] == [f"sample-{number}.wav" for number in range(1, len(files) + 1)]
    return [soundfile.read(file, dtype="int16")[0] for file in files]


def test_clips_and_a_picture_are_written(tiny_model, tmp_path):
    folder = sample(str(tiny_model), "calm piano", n=2, seconds=SECONDS, out=tmp_path / "a b", device="cpu")
    first, second = clips_of(folder)
    assert folder == tmp_path / "a b" and len(first) == len(second) == SECONDS * 16_000
    assert (first != second).any()
    assert (folder / "spectrograms.png").read_bytes().startswith(b"\x89PNG")


def test_a_clip_depends_only_on_the_seed_and_its_number(tiny_model, tmp_path):
    def clips(name, n, seed):
        out = tmp_path / name
        return clips_of(sample(str(tiny_model), "calm piano", n=n, seconds=SECONDS, seed=seed, out=out, device="cpu"))

    three, one, other = clips("three", 3, 0), clips("one", 1, 0), clips("other", 1, 1)
    # The decoder's matrix products round otherwise in another batch size: one step of 16 bits.
    assert np.abs(three[0].astype(int) - one[0]).max() <= 1
    assert (one[0] != other[0]).any()


def test_guidance_and_negative_prompt_change_the_audio(tiny_model, tmp_path):
    settings = [(1.0, None), (4.0, None), (4.0, "fast drums")]
    clips = [
        clips_of(
            sample(
                str(tiny_model), "calm piano", n=1, guidance=scale, negative_prompt=negative, seconds=SECONDS,
                out=tmp_path / str(number), device="cpu",
            )
        )[0]
        for number, (scale, negative) in enumerate(settings)
    ]  # fmt: skip
    assert (clips[0] != clips[1]).any() and (clips[1] != clips[2]).any()


def test_top_k_and_top_p_exclude_tokens(tiny_model, tmp_path):
    def clip(name, **settings):
        out = tmp_path / name
        return clips_of(sample(str(tiny_model), "calm piano", n=2, seconds=SECONDS, out=out, device="cpu", **settings))

    # With only the most likely token, the random numbers have no effect: the clips are equal for all seeds.
    one, other = clip("k", top_k=1), clip("p", top_p=1e-6, seed=1)
    assert all(np.abs(first.astype(int) - one[0]).max() <= 1 for first in (one[1], *other))
    free, bounded, all_tokens = clip("free"), clip("bounded", top_k=2), clip("all", top_k=10**6, top_p=1.0)
    assert all((a == b).all() for a, b in zip(free, all_tokens, strict=True))
    assert (free[0] != one[0]).any() and (bounded[0] != free[0]).any() and (bounded[0] != one[0]).any()


def test_the_default_folder_is_in_runs(tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = sample(str(tiny_model), "calm piano", n=1, seconds=SECONDS, device="cpu")
    assert folder.parts[:2] == ("runs", "samples") and (tmp_path / folder / "sample-1.wav").is_file()


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"n": 0}, "n is 0"),
        ({"prompt": " "}, "the prompt is empty"),
        (
            {"prompt": "piano " * 600},
            r"prompt 'piano piano .*…' has [\d,]+ tokens, and the .* encoder reads 512; shorten",
        ),
        ({"guidance": 3.0, "negative_prompt": "noise " * 600}, r"prompt 'noise .* reads 512; shorten it"),
        ({"seconds": 0.0}, "seconds"),
        ({"temperature": 0.0}, "temperature"),
        ({"guidance": float("nan")}, "guidance_scale"),
        ({"guidance": -1.0}, "guidance_scale must be finite and 0 or more"),
        ({"top_k": 0}, "top_k must be at least 1, got 0"),
        ({"top_p": 0.0}, r"top_p must be in \(0, 1\], got 0.0"),
        ({"top_p": float("nan")}, "top_p must be in .* got nan"),
        ({"model": "runs/none"}, "no such folder"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_input_is_an_error_and_writes_nothing(tiny_model, tmp_path, change, problem):
    options = {
        "model": str(tiny_model),
        "prompt": "x",
        "seconds": SECONDS,
        "out": tmp_path / "out",
        "device": "cpu",
        **change,
    }
    with pytest.raises(ValueError, match=problem):
        sample(**options)
    assert not (tmp_path / "out").exists()


def test_all_numbers_out_of_range_are_listed_before_the_model_is_loaded(monkeypatch):
    monkeypatch.setattr(MusicGen, "load", None)
    wrong = {"n": 0, "seconds": -1.0, "temperature": 0.0, "guidance": float("inf"), "top_k": 0, "top_p": 2.0}
    with pytest.raises(ConfigError) as caught:
        sample("base", " ", **wrong, seed=-1, device="tpu")
    problems = caught.value.problems
    names = ("n", "the prompt", "seconds", "seed", "device", "temperature", "guidance_scale", "top_k", "top_p")
    assert [problem.startswith(name) for problem, name in zip(problems, names, strict=True)] == [True] * 9


def test_a_file_in_place_of_the_folder_is_an_error_before_the_model_is_loaded(monkeypatch, tmp_path):
    monkeypatch.setattr(MusicGen, "load", None)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="out: '.*file' is a file"):
        sample("base", "piano", out=tmp_path / "file", device="cpu")


@pytest.mark.parametrize("name", ["n" * 256, "a/" + "n" * 256])
def test_a_name_that_the_disk_refuses_is_an_error_before_the_model_is_loaded(monkeypatch, tmp_path, name):
    monkeypatch.setattr(MusicGen, "load", None)
    with pytest.raises(ConfigError, match="out: .*name too long; choose a shorter name"):
        sample("base", "piano", out=tmp_path / name, device="cpu")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("existing", [False, True])
def test_a_disk_that_becomes_full_leaves_no_part_of_the_clips(tiny_model, tmp_path, existing):
    out = tmp_path / "clips"
    if existing:
        out.mkdir()
        (out / "sample-1.wav").write_text("old")
    with full_disk(8000), pytest.raises(OSError, match="too large") as caught:  # a clip has 10,284 bytes
        sample(str(tiny_model), "calm piano", n=2, seconds=SECONDS, out=out, device="cpu")
    assert caught.value.filename == str(out)
    assert [path.name for path in tmp_path.rglob("*")] == (["clips", "sample-1.wav"] if existing else [])
    assert not existing or (out / "sample-1.wav").read_text() == "old"


def test_a_prompt_with_dollar_signs_is_a_title_and_no_formula(tiny_model, tmp_path):
    sample(str(tiny_model), r"$\broken{$ and $HOME", n=1, seconds=SECONDS, out=tmp_path / "a", device="cpu")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["sample-1.wav", "spectrograms.png"]
