from __future__ import annotations

import hashlib
import json
import shutil
import socket
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
from qd.models.checkpoints import pretrained
from qd.models.checkpoints.fingerprint import fingerprint
from qd.models.checkpoints.resolver import checkpoint_problems
from qd.models.merging import writer
from qd.models.musicgen import MusicGen
from qd.models.sampling_defaults import save_sampling_defaults
from tests.models.merging.conftest import LAYOUTS, UNTOUCHED, halved, is_trained, rewrite, sharded, sibling, tensors_of

ROOT = Path(__file__).resolve().parents[3]


def naive(folders: list[Path], weights: list[float]) -> dict[str, torch.Tensor]:
    """Loads everything and averages what is a floating-point number."""
    models = [tensors_of(folder) for folder in folders]
    return {
        name: sum(w * model[name].float() for w, model in zip(weights, models, strict=True))
        if first.is_floating_point()
        else first
        for name, first in models[0].items()
    }


def files(folder: Path) -> dict[str, str]:
    """SHA-256 of all files but the recipe and the card."""
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
    still = [name for name in first if torch.equal(first[name], last[name])]
    assert any(UNTOUCHED in name for name in still) and any("text_encoder" in name for name in still)
    assert all(torch.equal(merged[name], first[name]) for name in still)
    assert checkpoint_problems(out) == []


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("base_first", [True, False])
def test_plain_transformers_samples_it_as_the_trained_model(base_first, layout, siblings, tmp_path):
    """The base of a MusicGen asks for guidance and for the 50 likeliest tokens; what was trained here needs neither."""
    base, trained = (shutil.copytree(one, tmp_path / one.name) for one in siblings[layout][:2])
    place = Path("decoder" if layout == "builtin" else ".") / "generation_config.json"
    (base / place).write_text('{"do_sample": true, "guidance_scale": 3.0, "top_k": 50}')
    save_sampling_defaults(trained, MusicGen.load(trained), 0.9, 0.32)
    expected = (trained / place).read_bytes()
    pair = [str(base), str(trained)][:: 1 if base_first else -1]
    untrained = merge(*pair, out=tmp_path / "untrained")  # nothing says which of them was trained
    assert (untrained / place).read_bytes() == (Path(pair[0]) / place).read_bytes()
    (trained / "recipe.yaml").write_text("kind: distillation")
    assert (merge(*pair, out=tmp_path / "merged") / place).read_bytes() == expected


@pytest.mark.parametrize("layout", LAYOUTS)
def test_plain_transformers_and_ours_load_it(layout, siblings, tmp_path):
    a, b, _ = siblings[layout]
    out = merge(str(a), str(b), lam=0.25, out=tmp_path / "merged")
    expected = naive([a, b], [0.75, 0.25])
    if layout == "builtin":
        plain, place = MusicgenForCausalLM.from_pretrained(out / "decoder"), "decoder/model:"
    else:
        plain, place = MusicgenForConditionalGeneration.from_pretrained(out), "model:"
    state, music = plain.state_dict(), MusicGen.load(out)
    prefix = "" if layout == "builtin" else "decoder."
    for name, weight in music.lm.decoder.state_dict().items():
        torch.testing.assert_close(weight, expected[f"{place}{prefix}{name}"])
        assert torch.equal(weight, state[f"{prefix}{name}"])
    name = "projection:" if layout == "builtin" else "model:enc_to_dec_proj."
    torch.testing.assert_close(music.lm.projection.weight, expected[f"{name}weight"])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_ends_are_copies_bit_for_bit(layout, siblings, tmp_path):
    a = siblings[layout][0]
    b = halved(siblings[layout][1], tmp_path / "half")
    if layout == "library":
        b = sharded(b, tmp_path / "cut", 3)
    assert files(merge(str(a), str(b), lam=0, out=tmp_path / "0")) == files(a)
    assert files(merge(str(a), str(b), lam=1, out=tmp_path / "1")) == files(b)
    soup = merge(models=[f"{a}:0", f"{b}:1", f"{siblings[layout][2]}:0"], out=tmp_path / "soup")
    assert files(soup) == files(b)
    assert yaml.safe_load((tmp_path / "1" / "recipe.yaml").read_text())["lam"] == 1


def test_does_not_depend_on_how_the_weights_are_cut(siblings, tmp_path):
    a, b, _ = siblings["library"]
    whole = tensors_of(merge(str(a), str(b), lam=0.4, out=tmp_path / "whole"))
    for first, second in ((3, 2), (1, 4), (4, 1)):
        names = [str(sharded(folder, tmp_path / f"{first}{second}{folder.name}", n) if n > 1 else folder)
                 for folder, n in ((a, first), (b, second))]  # fmt: skip
        out = merge(*names, lam=0.4, out=tmp_path / f"{first}{second}")
        cut = tensors_of(out)
        assert cut.keys() == whole.keys() and all(torch.equal(cut[name], whole[name]) for name in whole)
        assert len(list(out.glob("*.safetensors"))) == first
        assert MusicGen.load(out).lm.codebooks == 4
        if first > 1:
            index = json.loads((out / "model.safetensors.index.json").read_text())
            assert index["metadata"]["total_size"] == sum(t.numel() * t.element_size() for t in whole.values())


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
    if layout == "library":  # its codec and text encoder are rounded otherwise, which is a difference
        with pytest.raises(ValueError, match="a frozen part is not averaged"):
            merge(str(half_a), str(brain_b), out=tmp_path / "never")


def test_the_model_loads_in_the_type_that_it_is_stored_in(siblings, tmp_path):
    a, b, _ = siblings["builtin"]
    mixed = merge(str(halved(a, tmp_path / "half")), str(b), out=tmp_path / "mixed")
    loaded = MusicgenForCausalLM.from_pretrained(mixed / "decoder", dtype="auto")
    assert loaded.dtype == torch.float32


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
    with pytest.raises(ValueError, match=f"1 problem:\n  • {copy}: in {twice}, not in {a}"):
        merge(str(a), str(twice), out=tmp_path / "untied")
    for value in (0.0, 1.0):  # a bias of zeros is like any other bias of zeros, and yet no copy of it
        added = {"decoder.b": torch.full((4,), value)}
        plain = [shutil.copytree(folder, tmp_path / f"{folder.name}-{value}") for folder in (a, b)]
        for folder, extra in zip(plain, (added, added | {"decoder.extra": torch.full((4,), value)}), strict=True):
            save_file(load_file(folder / "model.safetensors") | extra, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(ValueError, match=r"decoder\.extra: in "):
            merge(*map(str, plain), out=tmp_path / "never")


def test_recipe_and_card_say_what_it_is_made_of(siblings, tmp_path, monkeypatch):
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
    assert card.startswith("---\nlibrary_name: transformers\nlicense: other\n")  # the models tell none
    again = merge(models=[str(out), str(a), str(b)], out="soup")
    nested = yaml.safe_load((again / "recipe.yaml").read_text())
    assert nested["lam"] is None and nested["models"][0]["recipe"] == recipe
    assert [model["weight"] for model in nested["models"]] == [1 / 3] * 3
    assert f"MODELS='{out}:0.3333333333333333 " in (again / "README.md").read_text()


def test_the_fingerprint_is_that_of_a_module_with_these_weights(siblings, tmp_path):
    a, b, _ = siblings["library"]
    out = merge(str(a), str(sharded(b, tmp_path / "cut", 3)), out=tmp_path / "merged")
    models = yaml.safe_load((out / "recipe.yaml").read_text())["models"]
    for folder, model in zip((a, b), models, strict=True):
        loaded = SimpleNamespace(state_dict=lambda folder=folder: load_file(folder / "model.safetensors"))
        assert model["fingerprint"] == fingerprint(loaded)


def test_what_differs_is_told_at_once(siblings, tmp_path):
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
    assert text.startswith("these models are no siblings, 6 problems:")
    for expected in (
        f"• decoder/config.json: num_attention_heads is 4 in {a}, 2 in {other}",
        f"• text_encoder/tokenizer.json: not the same in {a} and {other}",
        f"• decoder/lm_heads.1.weight: in {a}, not in {other}",
        f"• decoder/lm_heads.2.weight: shape (16, 32) in {a}, (3, 32) in {other}",
        f"• decoder/lm_heads.3.weight: torch.float32 in {a}, torch.int32 in {other}",
        f"• text_encoder/shared.weight: other values in {a} than in {other}, and a frozen part is not averaged",
    ):
        assert expected in text
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_two_layouts_are_no_siblings(siblings, tmp_path):
    with pytest.raises(ValueError, match="layout: the library's in .*, the built-in layout in "):
        merge(str(siblings["library"][0]), str(siblings["builtin"][0]), out=tmp_path / "merged")


def test_defaults_that_another_version_left_out_are_no_difference(siblings, tmp_path):
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
        with pytest.raises(ValueError, match=r"1 problem:\n  • .*layerdrop is 0.0 in .*, 0.5 in "):
            merge(str(a), str(old), out=tmp_path / "never")


def test_a_config_that_the_library_refuses_is_compared_as_it_stands(siblings, tmp_path):
    other = shutil.copytree(siblings["builtin"][1], tmp_path / "other")
    file = other / "decoder" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"ffn_dim": "wide"}))
    with pytest.raises(ValueError, match="decoder/config.json: ffn_dim is 64 in .*, 'wide' in "):
        merge(str(siblings["builtin"][0]), str(other), out=tmp_path / "never")


def test_names_of_older_library_versions_survive_a_run(siblings, tmp_path):
    """Checkpoints on the hub name the parts of normalised weights otherwise; the library saves as it has loaded."""
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


def test_how_a_tokenizer_was_used_last_is_no_difference(siblings, tmp_path):
    a, b, _ = siblings["builtin"]
    used = shutil.copytree(b, tmp_path / "used")
    music = MusicGen.load(used)
    music.condition(["a", "a calm piano"])
    music.tokenizer.save_pretrained(used / "text_encoder")
    assert merge(str(a), str(used), out=tmp_path / "merged")


def test_a_weight_that_is_not_finite_leaves_nothing_behind(siblings, tmp_path):
    a, b, _ = siblings["builtin"]
    broken = sibling(b, tmp_path / "broken", 3)
    rewrite(broken, lambda path, tensor: tensor / 0 if path.endswith("lm_heads.2.weight") else tensor)
    with pytest.raises(ValueError, match=f"decoder/lm_heads.2.weight: not finite in {broken}; merge an earlier step"):
        merge(str(a), str(broken), out=tmp_path / "out" / "merged")
    assert list((tmp_path / "out").iterdir()) == []


def test_an_extrapolation_may_leave_half_precision(siblings, tmp_path):
    a, b = (halved(folder, tmp_path / folder.name) for folder in siblings["builtin"][:2])
    rewrite(b, lambda path, tensor: tensor * 1000 if path.endswith("lm_heads.2.weight") else tensor)
    with pytest.raises(ValueError, match="lm_heads.2.weight: the sum is too large for torch.float16"):
        merge(str(a), str(b), lam=400, extrapolate=True, out=tmp_path / "merged")


def test_what_stops_it_leaves_nothing_behind_and_what_was_left_is_no_hindrance(siblings, tmp_path, monkeypatch):
    a, b, _ = siblings["builtin"]
    left = tmp_path / f".merged.{socket.gethostname()}-99999999.tmp" / "decoder"
    left.mkdir(parents=True)
    (left / "stray").touch()

    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(writer, "weighted_sum", interrupted)
        with pytest.raises(KeyboardInterrupt):
            merge(str(a), str(b), out=tmp_path / "merged")
    assert list(tmp_path.iterdir()) == []
    left.mkdir(parents=True)
    (left / "stray").touch()
    out = merge(str(a), str(b), out=tmp_path / "merged")
    assert list(tmp_path.iterdir()) == [out] and not (out / "decoder" / "stray").exists()


def test_all_that_is_wrong_with_the_request_is_told_at_once(siblings, tmp_path):
    a = siblings["builtin"][0]
    (tmp_path / "merged").mkdir()
    with pytest.raises(ValueError) as refused:
        merge(models=[f"{a}:1.5", "runs/nowhere:0.2", f"{a}/../{a.name}:0.1"], out=tmp_path / "merged")
    text = str(refused.value)
    assert text.startswith("these models cannot be merged, 5 problems:")
    for expected in (
        "weights 1.5, 0.2, 0.1 add up to 1.8; expected 1",
        "weights 1.5, 0.2, 0.1 leave [0, 1]",
        f"folder '{tmp_path / 'merged'}' exists already and is not overwritten",
        "model 'runs/nowhere': no such folder",
        f"'{a}/../{a.name}' is the same folder as '{a}'",
    ):
        assert expected in text
    assert list((tmp_path / "merged").iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "name two models, A=<quality> B=<diverse>"),
        ({"a": "base"}, "name two models"),
        ({"b": "base", "lam": 0.5}, "name two models"),
        ({"a": "base", "models": ["x", "y"]}, "MODELS .* A, B or LAMBDA"),
        ({"lam": 0.5, "models": ["x", "y"]}, "MODELS .* A, B or LAMBDA"),
        ({"models": ["x:0.5", "y"]}, "no weight for y; write name:weight for every model"),
    ],
)
def test_requests_that_say_too_little_or_too_much_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        merge(**arguments)


@pytest.mark.parametrize("lam", [-0.1, 1.05, float("nan"), float("inf")])
def test_lambda_outside_the_interval_must_be_asked_for(lam, siblings, tmp_path):
    a, b, _ = map(str, siblings["builtin"])
    with pytest.raises(ValueError, match="EXTRAPOLATE=1" if abs(lam) < 2 else "expected finite numbers"):
        merge(a, b, lam=lam, out=tmp_path / "merged")
    if abs(lam) < 2:
        out = merge(a, b, lam=lam, out=tmp_path / "merged", extrapolate=True)
        assert "EXTRAPOLATE=1" in (out / "README.md").read_text()


def test_a_full_disk_is_told_before(siblings, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=1000))
    a, b, _ = map(str, siblings["builtin"])
    with pytest.raises(ValueError, match="the merge needs 0.00 GiB .* 0.00 GiB free"):
        merge(a, b, out=tmp_path / "merged")
    assert list(tmp_path.iterdir()) == []


def test_a_hub_name_is_fetched(siblings, tmp_path, monkeypatch):
    a, b, _ = siblings["library"]
    asked = []

    def snapshot(name, revision, allow_patterns):
        asked.append((name, revision, allow_patterns))
        return str(b)

    monkeypatch.setattr(pretrained, "hub_commit", lambda name, revision: f"commit of {revision}")
    monkeypatch.setattr(pretrained, "snapshot_download", snapshot)
    out = merge(str(a), "some-owner/musicgen@v1", lam=0.5, out=tmp_path / "merged")
    assert asked == [("some-owner/musicgen", "commit of v1", ["*.safetensors", "*.json", "*.model", "*.txt"])]
    models = yaml.safe_load((out / "recipe.yaml").read_text())["models"]
    assert [model["model"] for model in models] == [str(a), "some-owner/musicgen@v1"]

    def unreachable(name, revision, allow_patterns):
        raise FileNotFoundError("no route")

    monkeypatch.setattr(pretrained, "snapshot_download", unreachable)
    with pytest.raises(ValueError, match="'some-owner/musicgen' cannot be loaded: no route. Fetch it .*MODEL=<folder>"):
        merge(str(a), "some-owner/musicgen", out=tmp_path / "never")


def test_only_what_is_true_of_the_merge_is_copied(siblings, tmp_path):
    a, b = (shutil.copytree(folder, tmp_path / folder.name) for folder in siblings["library"][:2])
    for name in ("metrics.json", "pytorch_model.bin", "optimizer.pt", "README.md"):
        (a / name).write_text("{}")
    (a / "spiece.model").write_bytes(b"pieces")
    out = merge(str(a), str(b), out=tmp_path / "merged")
    names = {path.name for path in out.iterdir()}
    assert names == {path.name for path in b.iterdir()} | {"spiece.model", "recipe.yaml", "README.md"}
    (b / "spiece.model").write_bytes(b"others")
    with pytest.raises(ValueError, match="spiece.model: not the same"):
        merge(str(a), str(b), out=tmp_path / "never")


def test_a_recipe_that_is_no_yaml_is_told(siblings, tmp_path):
    a = shutil.copytree(siblings["builtin"][0], tmp_path / "a")
    (a / "recipe.yaml").write_text("kind: [")
    with pytest.raises(ValueError, match="recipe.yaml' is no YAML"):
        merge(str(a), str(siblings["builtin"][1]), out=tmp_path / "merged")


PEAK = """
import sys
from pathlib import Path
from qd.commands.merge import merge

def peak():  # of this process alone: that of getrusage begins with the memory of the parent
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
    assert 4 < float(done.stdout) < 48  # MiB; the models are of 192 MiB, the largest tensor of 96
    merged = load_file(tmp_path / "out" / "model.safetensors")
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    assert torch.equal(merged["decoder.large"], 0.5 * first["decoder.large"] + 0.5 * second["decoder.large"])
