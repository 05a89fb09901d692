from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from qd.cli.main import main
from qd.commands.fad import fad
from qd.config.protocols import PROTOCOLS, Protocol
from qd.data.world import world
from qd.evaluation.fad_reference import clean_pieces, embed_windows, load_reference
from qd.metrics.frechet import frechet_distance, gaussian
from qd.metrics.kernel import kernel_audio_distance
from qd.models.embedders.loading import load_embedder, load_fad_embedder
from qd.models.embedders.vggish import VGGish
from tests.data.sounds import RATE, sound, write

SECONDS = 0.32


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, Path]:
    """Twelve recordings of each kind, glides and glides with noise; half of them are in a subfolder."""
    root, rng = tmp_path_factory.mktemp("fad"), np.random.default_rng(0)
    for number in range(12):
        tone = sound(number, SECONDS)
        for kind, noise in {"clean": 0.0, "noisy": 0.3}.items():
            write(root / kind / "ab"[number // 6] / f"{number}.wav", tone + noise * rng.normal(size=len(tone)))
    return {kind: root / kind for kind in ("clean", "noisy")}


def result(file: Path) -> dict:
    return json.loads(file.read_text())


def embeddings(folder: Path, embedder: Path) -> torch.Tensor:
    """Embeddings of one window each, in the order of the paths."""
    audio = [soundfile.read(path, dtype="float32")[0] for path in sorted(folder.rglob("*.wav"))]
    return load_embedder(embedder)(torch.from_numpy(np.stack(audio)))


def test_fad_of_two_folders(folders, tiny_embedder, tmp_path, capsys):
    file = fad(
        folders["noisy"], reference=folders["clean"], embedder=str(tiny_embedder), out=tmp_path / "new" / "a.json"
    )
    values = result(file)
    a, b = (gaussian(embeddings(folders[kind], tiny_embedder)) for kind in ("noisy", "clean"))
    assert values["fad"] == pytest.approx(float(frechet_distance(a, b)), rel=1e-3)
    kernel = kernel_audio_distance(*(embeddings(folders[kind], tiny_embedder) for kind in ("noisy", "clean")))
    assert values["kad"] == pytest.approx(float(kernel), rel=1e-3)
    assert (values["n"], values["n_reference"], values["width"], values["model"]) == (12, 12, 8, None)
    printed = capsys.readouterr().out
    assert f"FAD {values['fad']:.4f} of n = 12 embeddings" in printed and f"FAD∞ {values['fad_inf']:.4f}" in printed
    assert f"KAD {values['kad']:.4f}" in printed
    assert "few embeddings" in printed


def test_fad_of_a_folder_to_itself(folders, tiny_embedder, tmp_path):
    same = fad(folders["clean"], reference=folders["clean"], embedder=str(tiny_embedder), out=tmp_path / "a.json")
    assert result(same)["fad"] == pytest.approx(0.0, abs=1e-6)
    assert -100 < result(same)["kad"] < 0  # each recording is compared with itself once


def test_every_window_of_a_longer_file_is_an_embedding(tiny_embedder):
    embedder = load_embedder(tiny_embedder)
    long = torch.from_numpy(np.concatenate([sound(i, SECONDS) for i in range(3)])).float()[None]
    parts = embedder(long.unflatten(1, (3, -1))[0])
    torch.testing.assert_close(embed_windows(embedder, long, RATE), parts)
    vggish = VGGish()
    embedded = embed_windows(vggish, torch.zeros(2, 48_000), RATE)
    assert embedded.shape == (2 * 3, 128)


def test_a_long_file_is_embedded_a_few_windows_at_a_time(tiny_embedder, monkeypatch):
    embedder = load_embedder(tiny_embedder)
    audio = torch.randn(1, round(70 * embedder.clip_seconds * RATE), generator=torch.Generator().manual_seed(0))
    expected = embedder(audio.reshape(70, -1))
    embed_clips, vggish, sizes = embedder.embed_clips, VGGish(), []

    def noted(clips):
        sizes.append(len(clips))
        return embed_clips(clips)

    monkeypatch.setattr(embedder, "embed_clips", noted)
    torch.testing.assert_close(embed_windows(embedder, audio, RATE), expected)
    mean = torch.nn.functional.normalize(expected.mean(dim=0), dim=0)
    torch.testing.assert_close(embedder(audio)[0], mean)  # of the whole file
    assert sizes == [32, 32, 6] * 2
    vggish.features.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    assert embed_windows(vggish, torch.zeros(1, 40 * 15_600), RATE).shape == (40, 128) and max(sizes) == 32
    embedder(torch.zeros(64, 800))  # a batch of clips is embedded at once
    assert sizes[-1] == 64


def test_fad_of_a_model_to_the_built_in_reference(tiny_model, tiny_embedder, tmp_path, monkeypatch):
    monkeypatch.setattr("qd.evaluation.fad_reference.SECONDS", SECONDS)
    settings = {"n_reference": 12, "embedder": str(tiny_embedder), "protocol": "tiny"}
    monkeypatch.setitem(PROTOCOLS, "tiny", Protocol("tiny", "development", 6, 2, seconds=SECONDS))
    files = {
        name: fad(model=str(tiny_model), seed=seed, guidance=guidance, out=tmp_path / f"{name}.json", **settings)
        for name, (seed, guidance) in {"a": (0, 1.0), "b": (0, 1.0), "seed": (1, 1.0), "guided": (0, 3.0)}.items()
    }
    results = {name: result(file) for name, file in files.items()}
    assert results["a"]["fad"] == results["b"]["fad"] and results["a"]["fad_inf"] == results["b"]["fad_inf"]
    assert len({values["fad"] for values in results.values()}) == 3
    assert (results["a"]["n"], results["a"]["n_reference"], results["a"]["model"]) == (12, 12, str(tiny_model))
    assert (results["a"]["negative_prompt"], results["guided"]["negative_prompt"]) == (None, "Bad audio quality.")


def test_fad_of_a_model_on_own_prompts(tiny_model, tiny_embedder, folders, tmp_path, capsys):
    prompts = tmp_path / "mine.txt"
    prompts.write_text("slow drums\n\ncalm piano\nfast strings\nCalm piano\n", encoding="utf-8")
    arguments = ["--model", str(tiny_model), "--prompts", str(prompts), "--seconds", str(2 * SECONDS), "--device=cpu"]
    arguments += ["--reference", str(folders["clean"]), "--embedder", str(tiny_embedder)]
    assert main(["fad", *arguments, "--out", str(tmp_path / "a.json")]) == 0
    assert "3 prompts; 1 empty (line 2); 1 repeated (line 5)" in capsys.readouterr().err
    values = result(tmp_path / "a.json")
    assert values["n"] == 3 * PROTOCOLS["full"].n_samples * 2  # two windows a clip
    assert (values["prompts"], values["clip_seconds"]) == (str(prompts), 2 * SECONDS)


def test_prompts_are_checked_before_anything_is_embedded(tiny_model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("qd.commands.fad.load_fad_embedder", None)
    (tmp_path / "mine.txt").write_text(f"slow drums\n\n{'piano ' * 600}\nSlow drums\n", encoding="utf-8")
    arguments = ["fad", "--model", str(tiny_model), "--prompts", str(tmp_path / "mine.txt"), "--device=cpu"]
    assert main([*arguments, "--guidance=3", f"--negative-prompt={'noise ' * 600}"]) == 2
    output = capsys.readouterr().err
    assert "2 problems" in output and "negative_prompt has" in output
    assert re.search(r"prompts: prompt file .*: 1 too long .*line 3 \(", output)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--audio=builtin"], "audio is 'builtin', which is a reference; expected a folder of generations"),
        (["--audio=nowhere"], "recordings 'nowhere': expected a folder or a manifest (.csv or .jsonl); found nothing"),
        (["--audio=.", "--reference=gone"], "(.csv or .jsonl) or 'builtin'; found nothing"),
        (["--model=base", "--prompts=gone.txt", "--seconds=0"], "2 problems"),
    ],
)
def test_unusable_inputs_say_what_is_expected(arguments, problem, tmp_path, monkeypatch, capsys):
    write(tmp_path / "a.wav", sound(0, SECONDS))
    monkeypatch.chdir(tmp_path)
    assert main(["fad", *arguments, "--device=cpu"]) == 2
    assert problem in capsys.readouterr().err


def test_the_built_in_reference_is_clean():
    pieces = list(clean_pieces(3))
    clean = [clip.audio for clip in (world.clip("validation", i) for i in range(12)) if clip.degradation == "clean"]
    assert all(np.array_equal(piece[0].numpy(), audio) for piece, audio in zip(pieces, clean, strict=False))


def test_vggish_needs_its_file(tmp_path):
    with pytest.raises(ValueError, match="VGGish weights .*gone.pth'"):
        load_fad_embedder(f"vggish:{tmp_path / 'gone.pth'}")


def test_all_bad_settings_are_listed(tmp_path, capsys):
    (tmp_path / "old.json").touch()
    arguments = ["--out", str(tmp_path / "old.json"), "--n-reference=1", "--protocol=ful", "--guidance=-1"]
    assert main(["fad", *arguments, "--device=tpu"]) == 2
    error = capsys.readouterr().err
    assert "6 problems" in error
    assert "expected one of them: AUDIO=<folder> or MODEL=<name>" in error and "did you mean 'full'?" in error
    assert main(["fad", "--audio=a", "--model=base"]) == 2
    assert "audio is 'a' and model is 'base'" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "zip", "nan", "unclosed", "endless"])
def test_a_damaged_reference_is_embedded_again_with_a_warning(folders, tiny_embedder, tmp_path, monkeypatch, damage):
    arguments = (str(folders["clean"]), str(tiny_embedder), 512, torch.device("cpu"), tmp_path)
    whole = load_reference(*arguments)
    (file,) = tmp_path.iterdir()
    saved = file.read_bytes()
    zipped = io.BytesIO()
    np.savez(zipped, a=np.zeros(3))
    nan = io.BytesIO()
    np.save(nan, np.full_like(np.load(file), np.nan))
    spoiled = {
        "cut": saved[:-9],
        "empty": b"",
        "text": b"x" * 99,
        "zip": zipped.getvalue(),
        "nan": nan.getvalue(),
        "unclosed": saved.replace(b"}", b" ", 1),
        "endless": saved.replace(b"(", b"(" + b"9" * 20, 1),
    }
    file.write_bytes(spoiled[damage])
    with pytest.warns(UserWarning, match=f"{file.name} cannot be read"):
        again = load_reference(*arguments)
    assert torch.equal(again.embeddings, whole.embeddings) and again.description == whole.description
    assert file.read_bytes() == saved and list(tmp_path.iterdir()) == [file]
    monkeypatch.setattr("qd.evaluation.fad_reference.embed_recordings", None)  # cached: not embedded again
    assert torch.equal(load_reference(*arguments).embeddings, whole.embeddings)


def test_too_little_audio_is_an_error(folders, tiny_embedder):
    with pytest.raises(ValueError, match="generations give 6 embeddings; expected 10"):
        fad(folders["noisy"] / "a", reference=folders["clean"], embedder=str(tiny_embedder))
