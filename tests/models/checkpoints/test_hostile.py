"""Folders from strangers: nothing in them is run, nothing outside them is read, and every fault is one short line."""

from __future__ import annotations

import io
import json
import shutil
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from qd.models.checkpoints.json_files import read_object
from qd.models.checkpoints.resolver import resolve_model
from qd.models.embedders.audio_vit import AudioViT
from qd.models.embedders.clap import ClapEmbedder
from qd.models.musicgen import MusicGen
from qd.scorers.clap import load_clap_scorer
from tests.conftest import build_tiny_embedder

CODE = "from pathlib import Path\nPath({mark!r}).touch()\nraise SystemExit\n"
DEEP = '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}"


def changed(file: Path, **values) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def refusal(load, *arguments) -> str:
    """The one line of the error."""
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as caught:
        load(*arguments)
    return str(caught.value)


@pytest.fixture
def mine(tiny_model, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


@pytest.fixture
def library(encodec_checkpoint, tmp_path) -> Path:
    return Path(shutil.copytree(encodec_checkpoint, tmp_path / "library"))


@pytest.fixture
def clap(tiny_clap, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_clap, tmp_path / "clap"))


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("kind", ["builtin", "library", "clap", "clap scorer"])
def test_code_in_a_folder_is_never_run(mine, library, clap, monkeypatch, tmp_path, capsys, file, kind):
    folder = {"builtin": mine / "text_encoder", "library": library}.get(kind, clap)
    mark = tmp_path / "executed"
    (folder / "code.py").write_text(CODE.format(mark=str(mark)))
    names = ("AutoConfig", "AutoModel", "AutoTokenizer", "AutoFeatureExtractor", "AutoProcessor")
    own = {"auto_map": {name: "code.Own" for name in names}, "tokenizer_class": "Own"}
    if (folder / file).is_file():
        changed(folder / file, **own)
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 10))
    load = {"builtin": lambda: MusicGen.load(mine), "library": lambda: MusicGen.load(library)}
    load |= {
        "clap": lambda: ClapEmbedder.from_pretrained(str(clap)),
        "clap scorer": lambda: load_clap_scorer(str(clap)),
    }
    try:
        load[kind]()
    except ValueError as error:
        assert "\n" not in str(error)
    assert not mark.exists() and sys.stdin.read().startswith("y\n")  # nothing asked, nothing read
    assert "y/N" not in capsys.readouterr().out


def test_a_tokenizer_of_an_own_class_is_refused_with_the_reason(mine, monkeypatch, tmp_path):
    mark = tmp_path / "executed"
    (mine / "text_encoder" / "code.py").write_text(CODE.format(mark=str(mark)))
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 10))
    own = {"auto_map": {"AutoTokenizer": ["code.Own", None]}, "tokenizer_class": "Own"}
    changed(mine / "text_encoder" / "tokenizer_config.json", **own)
    changed(mine / "text_encoder" / "config.json", model_type="own", auto_map={"AutoConfig": "code.Own"})
    text = refusal(MusicGen.load, mine)
    assert str(mine / "text_encoder") in text and "never run" in text
    assert not mark.exists()


@pytest.mark.parametrize("name", ["/etc/passwd", "../outside.safetensors", "a/../../b", "..", "", "a\\b"])
def test_a_shard_outside_the_folder_is_refused(library, name):
    index = library / "model.safetensors.index.json"
    tensors = json.loads(index.read_text())["weight_map"]
    changed(index, weight_map={**tensors, min(tensors): name})
    for load in (resolve_model, MusicGen.load):
        text = refusal(load, library)
        assert str(index) in text and repr(name) in text and "same folder" in text


@pytest.mark.parametrize("content", [{"weight_map": ["a"]}, {"weight_map": {"a": 1}}, {"weight_map": "a"}, ["a"], {}])
def test_an_index_of_another_shape_is_refused(library, content):
    index = library / "model.safetensors.index.json"
    index.write_text(json.dumps(content))
    assert index.name in refusal(MusicGen.load, library)


def test_an_index_of_an_embedder_is_checked_too(clap):
    (clap / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"a": "../../secret"}}))
    assert "../../secret" in refusal(ClapEmbedder.from_pretrained, str(clap))


@pytest.mark.parametrize("content", [DEEP, '{"a": ' + "9" * 5000 + "}", "[]", "{", '"text"', "\x00"])
@pytest.mark.parametrize(
    "file",
    ["decoder/config.json", "text_encoder/config.json", "codec/config.json", "text_encoder/tokenizer_config.json",
     "text_encoder/tokenizer.json"],
)  # fmt: skip
def test_damaged_and_deep_json_is_one_line(mine, file, content):
    (mine / file).write_text(content)
    text = refusal(MusicGen.load, mine)
    assert Path(file).name in text or str(mine / Path(file).parent) in text


def test_a_large_json_file_is_not_read(tmp_path):
    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(2**40)
    assert "1,099,511,627,776 bytes" in refusal(read_object, tmp_path / "config.json")


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("decoder", "num_hidden_layers", 10**6),
        ("decoder", "num_codebooks", 10**9),
        ("decoder", "num_attention_heads", 0),
        ("decoder", "max_position_embeddings", 2**40),
        ("decoder", "ffn_dim", 2**19),
        ("decoder", "ffn_dim", -4),
        ("decoder", "ffn_dim", "many"),
        ("decoder", "vocab_size", 2**60),
        ("text_encoder", "num_layers", 10**6),
        ("text_encoder", "relative_attention_num_buckets", 2**19),
        ("text_encoder", "d_ff", 2**50),
        ("codec", "encoder_depths", [10**9, 1]),
        ("codec", "n_mels", 10**9),
        ("codec", "n_fft", 2**40),
        ("codec", "width", 2**13),
        ("codec", "codebook_size", -1),
        ("codec", "hop_length", 0),
        ("codec", "stride", "2"),
        ("codec", "stride", None),
    ],
)
def test_absurd_sizes_are_refused_before_memory_is_allocated(mine, file, key, value):
    changed(mine / file / "config.json", **{key: value})
    text = refusal(MusicGen.load, mine)
    assert str(mine / file) in text or str(mine) in text and key in text


@pytest.mark.parametrize(
    ("key", "value"),
    [("layers", 10**9), ("width", 2**40), ("width", 4096), ("clip_seconds", 1e15), ("clip_seconds", float("inf")),
     ("hop_length", 0), ("heads", "two"), ("log_mel", 1), ("n_mels", None)],
)  # fmt: skip
def test_absurd_embedders_are_refused(tmp_path, key, value):
    build_tiny_embedder().save_pretrained(tmp_path)
    changed(tmp_path / "config.json", **{key: value})
    text = refusal(AudioViT.from_pretrained, tmp_path)
    assert str(tmp_path) in text and (key in text or "has the shape" in text)


def test_the_first_tensor_that_does_not_fit_is_named(tmp_path):
    build_tiny_embedder().save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    for name, changes in {
        "norm.weight": {"norm.weight": tensors["norm.weight"][:1]},
        "stray": {"stray": tensors["norm.bias"].clone()},
    }.items():
        save_file(tensors | changes, tmp_path / "model.safetensors")
        assert f"weights do not fit config.json: {name} " in refusal(AudioViT.from_pretrained, tmp_path)
