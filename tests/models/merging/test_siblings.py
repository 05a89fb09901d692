"""Differences between models that prevent a merge, and differences that do not."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from qd.commands.merge import merge
from qd.models.musicgen import MusicGen
from tests.models.merging.conftest import rewrite, tensors_of


def test_tied_weights_may_be_stored_once_or_twice(siblings, tmp_path):
    a, b, _ = siblings["library"]
    shared, copy = "text_encoder.shared.weight", "text_encoder.encoder.embed_tokens.weight"
    twice = shutil.copytree(b, tmp_path / "twice")
    weights = load_file(twice / "model.safetensors")
    save_file(weights | {copy: weights[shared].clone()}, twice / "model.safetensors", {"format": "pt"})
    once = tensors_of(merge(str(a), str(b), out=tmp_path / "once"))
    for name, pair in {"ab": (a, twice), "ba": (twice, a)}.items():
        merged = tensors_of(merge(*map(str, pair), out=tmp_path / name))
        assert merged.keys() == once.keys()
        assert all(torch.equal(merged[key], once[key]) for key in once)
        assert MusicGen.load(tmp_path / name)
    save_file(weights | {copy: weights[shared] + 1}, twice / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=f"1 problem:\n.*{copy}: in {twice}, not in {a}"):
        merge(str(a), str(twice), out=tmp_path / "untied")
    for value in (0.0, 1.0):  # a constant bias equals other constant biases, but is not tied to them
        added = {"decoder.b": torch.full((4,), value)}
        plain = [shutil.copytree(folder, tmp_path / f"{folder.name}-{value}") for folder in (a, b)]
        for folder, extra in zip(plain, (added, added | {"decoder.extra": torch.full((4,), value)}), strict=True):
            save_file(load_file(folder / "model.safetensors") | extra, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(ValueError, match=r"decoder\.extra: in "):
            merge(*map(str, plain), out=tmp_path / "never")


def test_all_differences_are_reported_at_once(siblings, tmp_path):
    a, b, _ = siblings["builtin"]
    other = shutil.copytree(b, tmp_path / "other")
    config = json.loads((other / "decoder" / "config.json").read_text())
    (other / "decoder" / "config.json").write_text(json.dumps(config | {"num_attention_heads": 2}))
    tokenizer = json.loads((other / "text_encoder" / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["new"] = 300
    (other / "text_encoder" / "tokenizer.json").write_text(json.dumps(tokenizer))

    def change(path, tensor):
        if path.endswith("lm_heads.1.weight"):
            return None
        if path.endswith("lm_heads.2.weight"):
            return tensor[:3].contiguous()
        if path.endswith("lm_heads.3.weight"):
            return tensor.to(torch.int32)
        return tensor + 1 if path.startswith("text_encoder") and path.endswith("shared.weight") else tensor

    rewrite(other, change)
    with pytest.raises(ValueError) as refused:
        merge(str(a), str(other), out=tmp_path / "merged")
    text = str(refused.value)
    assert "6 problems" in text.splitlines()[0]
    for expected in (
        f"decoder/config.json: num_attention_heads is 4 in {a}, 2 in {other}",
        "text_encoder/tokenizer.json: not the same",
        f"decoder/lm_heads.1.weight: in {a}, not in {other}",
        f"decoder/lm_heads.2.weight: shape (16, 32) in {a}, (3, 32) in {other}",
        f"decoder/lm_heads.3.weight: torch.float32 in {a}, torch.int32 in {other}",
        "text_encoder/shared.weight: different values",
    ):
        assert expected in text
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_models_in_two_layouts_are_not_siblings(siblings, tmp_path):
    with pytest.raises(ValueError, match="layout: the library's in .*, the built-in layout in "):
        merge(str(siblings["library"][0]), str(siblings["builtin"][0]), out=tmp_path / "merged")


def test_defaults_omitted_by_another_version_are_not_a_difference(siblings, tmp_path):
    for layout, place in (("builtin", "decoder"), ("library", ".")):
        a, b, _ = siblings[layout]
        old = shutil.copytree(b, tmp_path / layout)
        config = json.loads((old / place / "config.json").read_text())
        decoder = config if layout == "builtin" else config["decoder"]
        del decoder["activation_dropout"], decoder["layerdrop"]
        config |= {"transformers_version": "4.31.0", "torch_dtype": "float32"}
        config.pop("dtype", None)
        (old / place / "config.json").write_text(json.dumps(config))
        assert merge(str(a), str(old), out=tmp_path / f"{layout}-merged")
        decoder["layerdrop"] = 0.5
        (old / place / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError, match=r"1 problem:\n.*layerdrop is 0.0 in .*, 0.5 in "):
            merge(str(a), str(old), out=tmp_path / "never")


def test_a_config_that_the_library_rejects_is_compared_unchanged(siblings, tmp_path):
    other = shutil.copytree(siblings["builtin"][1], tmp_path / "other")
    file = other / "decoder" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"ffn_dim": "wide"}))
    with pytest.raises(ValueError, match="decoder/config.json: ffn_dim is 64 in .*, 'wide' in "):
        merge(str(siblings["builtin"][0]), str(other), out=tmp_path / "never")


def test_names_of_older_library_versions_can_be_merged(siblings, tmp_path):
    """Hub checkpoints use older names for parts of normalised weights; the library saves the names that it loaded."""
    old = shutil.copytree(siblings["library"][0], tmp_path / "old")
    names = {".parametrizations.weight.original0": ".weight_g", ".parametrizations.weight.original1": ".weight_v"}
    weights = load_file(old / "model.safetensors")
    for new, former in names.items():
        weights = {name.replace(new, former): weight for name, weight in weights.items()}
    save_file(weights, old / "model.safetensors", {"format": "pt"})
    music = MusicGen.load(old)
    with torch.no_grad():
        music.lm.decoder.lm_heads[0].weight += 1
    music.save(tmp_path / "run")
    out = merge(str(old), str(tmp_path / "run"), lam=0.5, out=tmp_path / "merged")
    expected = weights["decoder.lm_heads.0.weight"] + 0.5
    torch.testing.assert_close(MusicGen.load(out).lm.decoder.lm_heads[0].weight, expected)


def test_the_last_use_of_a_tokenizer_is_not_a_difference(siblings, tmp_path):
    a, b, _ = siblings["builtin"]
    used = shutil.copytree(b, tmp_path / "used")
    music = MusicGen.load(used)
    music.condition(["a", "a calm piano"])
    music.tokenizer.save_pretrained(used / "text_encoder")
    assert merge(str(a), str(used), out=tmp_path / "merged")
