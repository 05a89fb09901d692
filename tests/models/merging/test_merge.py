"""Merges, compared with the average of models that are loaded completely."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import MusicgenForCausalLM, MusicgenForConditionalGeneration

from qd.commands.merge import merge
from qd.models.checkpoints.fingerprint import fingerprint
from qd.models.checkpoints.resolver import checkpoint_problems
from qd.models.musicgen import MusicGen
from qd.models.sampling_defaults import save_sampling_defaults
from tests.models.merging.conftest import LAYOUTS, UNTOUCHED, halved, is_trained, sharded, tensors_of

ROOT = Path(__file__).resolve().parents[3]


def naive(folders: list[Path], weights: list[float]) -> dict[str, torch.Tensor]:
    """Loads all models into memory and averages the floating-point tensors."""
    models = [tensors_of(folder) for folder in folders]
    return {
        name: sum(w * model[name].float() for w, model in zip(weights, models, strict=True))
        if first.is_floating_point()
        else first
        for name, first in models[0].items()
    }


def files(folder: Path) -> dict[str, str]:
    """SHA-256 of all files except the recipe and the card."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file() and file.name not in ("recipe.yaml", "README.md")
    }


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("weights", [[0.7, 0.3], [0.5, 0.5], [0.2, 0.3, 0.5], [-0.5, 1.5]])
def test_equals_loading_everything_and_averaging(layout, weights, siblings, tmp_path):
    folders = siblings[layout][: len(weights)]
    models = [f"{folder}:{weight}" for folder, weight in zip(folders, weights, strict=True)]
    out = merge(models=models, out=tmp_path / "merged", extrapolate=min(weights) < 0)
    merged, expected = tensors_of(out), naive(folders, weights)
    assert merged.keys() == expected.keys()
    for name, tensor in merged.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-6, atol=1e-6)
    first, last = tensors_of(folders[0]), tensors_of(folders[-1])
    assert any(not torch.equal(merged[name], first[name]) for name in first)
    unchanged = [name for name in first if torch.equal(first[name], last[name])]
    assert any(UNTOUCHED in name for name in unchanged) and any("text_encoder" in name for name in unchanged)
    assert all(torch.equal(merged[name], first[name]) for name in unchanged)
    assert checkpoint_problems(out) == []


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("base_first", [True, False])
def test_plain_transformers_samples_it_as_the_trained_model(base_first, layout, siblings, tmp_path):
    """A MusicGen base uses guidance and the 50 likeliest tokens; a model that was trained here uses neither."""
    base, trained = (shutil.copytree(model, tmp_path / model.name) for model in siblings[layout][:2])
    file = Path("decoder" if layout == "builtin" else ".") / "generation_config.json"
    (base / file).write_text('{"do_sample": true, "guidance_scale": 3.0, "top_k": 50}')
    save_sampling_defaults(trained, MusicGen.load(trained), 0.9, 0.32)
    expected = (trained / file).read_bytes()
    pair = [str(base), str(trained)][:: 1 if base_first else -1]
    untrained = merge(*pair, out=tmp_path / "untrained")  # no recipe marks the trained model
    assert (untrained / file).read_bytes() == (Path(pair[0]) / file).read_bytes()
    (trained / "recipe.yaml").write_text("kind: distillation")
    assert (merge(*pair, out=tmp_path / "merged") / file).read_bytes() == expected


@pytest.mark.parametrize("layout", LAYOUTS)
def test_plain_transformers_and_ours_load_it(layout, siblings, tmp_path):
    a, b, _ = siblings[layout]
    out = merge(str(a), str(b), lam=0.25, out=tmp_path / "merged")
    expected = naive([a, b], [0.75, 0.25])
    if layout == "builtin":
        plain, file = MusicgenForCausalLM.from_pretrained(out / "decoder"), "decoder/model:"
    else:
        plain, file = MusicgenForConditionalGeneration.from_pretrained(out), "model:"
    state, music = plain.state_dict(), MusicGen.load(out)
    prefix = "" if layout == "builtin" else "decoder."
    for name, weight in music.lm.decoder.state_dict().items():
        torch.testing.assert_close(weight, expected[f"{file}{prefix}{name}"])
        assert torch.equal(weight, state[f"{prefix}{name}"])
    name = "projection:" if layout == "builtin" else "model:enc_to_dec_proj."
    torch.testing.assert_close(music.lm.projection.weight, expected[f"{name}weight"])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_lambda_of_0_or_1_copies_bit_for_bit(layout, siblings, tmp_path):
    a = siblings[layout][0]
    b = halved(siblings[layout][1], tmp_path / "half")
    if layout == "library":
        b = sharded(b, tmp_path / "sharded", 3)
    assert files(merge(str(a), str(b), lam=0, out=tmp_path / "0")) == files(a)
    assert files(merge(str(a), str(b), lam=1, out=tmp_path / "1")) == files(b)
    soup = merge(models=[f"{a}:0", f"{b}:1", f"{siblings[layout][2]}:0"], out=tmp_path / "soup")
    assert files(soup) == files(b)
    assert yaml.safe_load((tmp_path / "1" / "recipe.yaml").read_text())["lam"] == 1


def test_does_not_depend_on_the_shards(siblings, tmp_path):
    a, b, _ = siblings["library"]
    unsharded = tensors_of(merge(str(a), str(b), lam=0.4, out=tmp_path / "unsharded"))
    for first, second in ((3, 2), (1, 4), (4, 1)):
        names = [str(sharded(folder, tmp_path / f"{first}{second}{folder.name}", n) if n > 1 else folder)
                 for folder, n in ((a, first), (b, second))]  # fmt: skip
        out = merge(*names, lam=0.4, out=tmp_path / f"{first}{second}")
        shards = tensors_of(out)
        assert shards.keys() == unsharded.keys()
        assert all(torch.equal(shards[name], tensor) for name, tensor in unsharded.items())
        assert len(list(out.glob("*.safetensors"))) == first
        assert MusicGen.load(out).lm.codebooks == 4
        if first > 1:
            index = json.loads((out / "model.safetensors.index.json").read_text())
            assert index["metadata"]["total_size"] == sum(t.numel() * t.element_size() for t in unsharded.values())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_half_precision_only_where_all_models_have_it(layout, siblings, tmp_path):
    a, b, _ = siblings[layout]
    half_a, half_b = halved(a, tmp_path / "ha"), halved(b, tmp_path / "hb")
    brain_b = halved(b, tmp_path / "bb", torch.bfloat16)
    mixed = merge(str(half_a), str(b), lam=0.5, out=tmp_path / "mixed")
    merged, expected = tensors_of(mixed), naive([half_a, b], [0.5, 0.5])
    assert {tensor.dtype for tensor in merged.values() if tensor.is_floating_point()} == {torch.float32}
    assert '"float16"' not in "".join(config.read_text() for config in mixed.rglob("config.json"))
    full = tensors_of(b)
    for name, tensor in merged.items():
        if is_trained(name.replace(":", ".safetensors/")) and UNTOUCHED not in name:
            torch.testing.assert_close(tensor, expected[name], rtol=1e-6, atol=1e-6)
        elif "decoder/" not in name and "model:decoder" not in name:
            assert torch.equal(tensor, full[name]), name  # frozen: the finer of the two
    halves = tensors_of(merge(str(half_a), str(half_b), out=tmp_path / "halves"))
    assert {tensor.dtype for tensor in halves.values() if tensor.is_floating_point()} == {torch.float16}
    for name, value in naive([half_a, half_b], [0.5, 0.5]).items():
        assert torch.equal(halves[name], value.to(halves[name].dtype)), name
    kind = next(tensor for name, tensor in tensors_of(brain_b).items() if "lm_heads.1" in name).dtype
    assert kind == torch.bfloat16
    if layout == "library":  # its codec and text encoder are rounded differently, so frozen parts differ
        with pytest.raises(ValueError, match="a frozen part is not averaged"):
            merge(str(half_a), str(brain_b), out=tmp_path / "never")


def test_the_model_loads_in_the_type_that_it_is_stored_in(siblings, tmp_path):
    a, b, _ = siblings["builtin"]
    mixed = merge(str(halved(a, tmp_path / "half")), str(b), out=tmp_path / "mixed")
    loaded = MusicgenForCausalLM.from_pretrained(mixed / "decoder", dtype="auto")
    assert loaded.dtype == torch.float32


def test_recipe_and_card_name_the_merged_models(siblings, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    a, b, _ = siblings["builtin"]
    for step in (500, 1000):
        shutil.copytree(b, tmp_path / "runs" / "beta15" / f"step-{step:06d}")
    history = {"kind": "distillation", "step": 1000, "config": {"prompt": "costs ${5"}}
    (tmp_path / "runs" / "beta15" / "step-001000" / "recipe.yaml").write_text(yaml.safe_dump(history))
    out = merge(str(a), "runs/beta15", lam=0.05)
    assert out == Path("runs/merged") / f"{a.parent.name}-{a.name}-beta15-lambda0.05"
    recipe = yaml.safe_load((out / "recipe.yaml").read_text())
    assert recipe["kind"] == "merge" and recipe["lam"] == 0.05
    assert [model["model"] for model in recipe["models"]] == [str(a), "runs/beta15/step-001000"]
    assert [model["weight"] for model in recipe["models"]] == [0.95, 0.05]
    assert [model["recipe"] for model in recipe["models"]] == [None, history]
    assert len({model["fingerprint"] for model in recipe["models"]}) == 2
    assert set(recipe["versions"]) == {"qd", "torch", "safetensors"}
    card = (out / "README.md").read_text()
    assert f"make merge A={a} B=runs/beta15/step-001000 LAMBDA=0.05" in card and "float32" in card
    assert card.startswith("---\nlibrary_name: transformers\nlicense: other\n")  # the models name no licence
    again = merge(models=[str(out), str(a), str(b)], out="soup")
    nested = yaml.safe_load((again / "recipe.yaml").read_text())
    assert nested["lam"] is None and nested["models"][0]["recipe"] == recipe
    assert [model["weight"] for model in nested["models"]] == [1 / 3] * 3
    assert f"MODELS='{out}:0.3333333333333333 " in (again / "README.md").read_text()


def test_the_fingerprint_equals_that_of_a_module_with_these_weights(siblings, tmp_path):
    a, b, _ = siblings["library"]
    out = merge(str(a), str(sharded(b, tmp_path / "cut", 3)), out=tmp_path / "merged")
    models = yaml.safe_load((out / "recipe.yaml").read_text())["models"]
    for folder, model in zip((a, b), models, strict=True):
        loaded = SimpleNamespace(state_dict=lambda folder=folder: load_file(folder / "model.safetensors"))
        assert model["fingerprint"] == fingerprint(loaded)


PEAK = """
import sys
from pathlib import Path
from qd.commands.merge import merge

def peak():  # of this process only: getrusage would include the memory of the parent process
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024

before = peak()
merge(sys.argv[1], sys.argv[2], lam=0.5, out=sys.argv[3])
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_memory_is_less_than_the_largest_tensor(tmp_path):
    for number, name in enumerate("ab"):
        (tmp_path / name).mkdir()
        generator = torch.Generator().manual_seed(number)
        sizes = {"decoder.large": 24 * 2**20, "decoder.middle": 16 * 2**20, "audio_encoder.x": 8 * 2**20}
        weights = {key: torch.randn(size, generator=generator) for key, size in sizes.items()}
        weights["audio_encoder.x"].zero_()
        save_file(weights, tmp_path / name / "model.safetensors", {"format": "pt"})
        for file in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            (tmp_path / name / file).write_text("{}")
    command = [sys.executable, "-c", PEAK, *(str(tmp_path / name) for name in ("a", "b", "out"))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert 4 < float(done.stdout) < 48  # MiB; a model has 192 MiB, its largest tensor 96 MiB
    merged = load_file(tmp_path / "out" / "model.safetensors")
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert torch.equal(merged["decoder.large"], 0.5 * first["decoder.large"] + 0.5 * second["decoder.large"])
