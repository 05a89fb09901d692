from __future__ import annotations

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from qd.models.checkpoints import resolver
from qd.models.checkpoints.resolver import checkpoint_problems, resolve_asset, resolve_model, step_folder, step_folders
from qd.models.embedders.audio_vit import AudioViTConfig
from qd.models.embedders.loading import load_embedder
from qd.models.musicgen import MusicGen
from qd.scorers.folder import read_config, save_scorer
from qd.scorers.preference import PreferenceScorer


@pytest.fixture
def library(encodec_checkpoint, tmp_path):
    """A copy of the sharded checkpoint in the library's layout, which a test may damage."""
    return shutil.copytree(encodec_checkpoint, tmp_path / "library")


@pytest.fixture
def builtin(tiny_model, tmp_path):
    """A copy of the checkpoint in the built-in layout, which a test may damage."""
    return shutil.copytree(tiny_model, tmp_path / "builtin")


def test_complete_folders_resolve_to_themselves(library, builtin):
    assert len(list(library.glob("model-*.safetensors"))) > 2
    assert checkpoint_problems(library) == checkpoint_problems(builtin) == []
    assert resolve_model(library) == str(library) and resolve_model(str(builtin)) == str(builtin)


def test_runs_resolve_to_their_newest_step(builtin, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "runs" / "beta15"
    for step in ("step-000500", "step-001500", "step-001000"):
        shutil.copytree(builtin, run / step)
    (run / "step-009000.partial").mkdir()
    assert step_folders(run) == [step_folder(run, step) for step in (500, 1000, 1500)]
    assert resolve_model("runs/beta15") == "runs/beta15/step-001500"
    assert resolve_model("runs/beta15/step-000500") == "runs/beta15/step-000500"
    (run / "step-001500" / "decoder" / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"runs/beta15/step-001500'.*decoder/model.safetensors is missing"):
        resolve_model("runs/beta15")


def test_hub_names_are_returned_unchanged(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("facebook/musicgen-small", "facebook/musicgen-small@refs/pr/1"):
        assert resolve_model(name) == name


@pytest.mark.parametrize(
    "name", ["bsae", "runs/none", "./nowhere", "/no/such/folder", "a/b/c", "", "runs/", "a/b@", "base@v1", "runs/x@v1"]
)
def test_invalid_names_are_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="model '"):
        resolve_model(name)


def test_a_misspelt_run_gets_the_nearest_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "beta15").mkdir(parents=True)
    with pytest.raises(ValueError, match="did you mean 'runs/beta15'"):
        resolve_model("runs/beta51")


def test_base_is_the_shipped_folder(builtin, monkeypatch, tmp_path):
    monkeypatch.setattr(resolver, "ASSETS", tmp_path / "assets")
    with pytest.raises(ValueError, match="run `make base`"):
        resolve_model("base")
    shutil.copytree(builtin, tmp_path / "assets" / "base")
    assert resolve_model("base") == str(tmp_path / "assets" / "base")


def test_assets(builtin, monkeypatch, tmp_path):
    monkeypatch.setattr(resolver, "ASSETS", tmp_path / "assets")
    with pytest.raises(ValueError, match="'codec'.*expected one of embedder, embedder_heldout"):
        resolve_asset("codec")
    shutil.copytree(builtin / "codec", tmp_path / "assets" / "embedder")
    assert resolve_asset("embedder") == str(tmp_path / "assets" / "embedder")
    (tmp_path / "assets" / "embedder" / "config.json").unlink()
    with pytest.raises(ValueError, match="embedder'.*config.json is missing"):
        resolve_asset("embedder")


@pytest.mark.parametrize(
    "file",
    [
        "decoder/config.json", "decoder/model.safetensors", "text_encoder/model.safetensors", "projection.safetensors",
        "text_encoder/tokenizer.json", "text_encoder/tokenizer_config.json", "codec/config.json",
        "codec/model.safetensors",
    ],
)  # fmt: skip
def test_missing_files_of_the_built_in_layout_are_named(file, builtin):
    (builtin / file).unlink()
    with pytest.raises(ValueError, match=f"{file} is missing"):
        MusicGen.load(builtin)


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "model-00002-of-*.safetensors"])
def test_missing_files_of_the_library_layout_are_named(file, library):
    (path,) = library.glob(file)
    path.unlink()
    with pytest.raises(ValueError, match=f"{path.name} is missing"):
        MusicGen.load(library)


def test_all_problems_are_named_at_once(library):
    shards = sorted(library.glob("model-*.safetensors"))[:2]
    for path in (*shards, library / "tokenizer.json"):
        path.unlink()
    with pytest.raises(ValueError) as caught:
        resolve_model(library)
    assert all(name in str(caught.value) for name in (shards[0].name, shards[1].name, "tokenizer.json"))


def test_a_truncated_file_is_named(library, builtin):
    for path in (sorted(library.glob("model-*.safetensors"))[0], builtin / "codec" / "model.safetensors"):
        path.write_bytes(path.read_bytes()[:-10])
        with pytest.raises(ValueError, match=f"{path.name} is damaged"):
            MusicGen.load(library if path.parent == library else builtin)


@pytest.mark.parametrize("text", ['{"model_type": ', "[]", "\xff"])
def test_a_damaged_config_is_named(text, library, builtin, tiny_clap, tiny_embedder, tmp_path):
    clap, embedder = (shutil.copytree(folder, tmp_path / folder.name) for folder in (tiny_clap, tiny_embedder))
    scorer = save_scorer(tmp_path / "scorer", PreferenceScorer.name, AudioViTConfig(), {}, half=False)
    for load, folder in (
        (MusicGen.load, library),
        (MusicGen.load, builtin / "decoder"),
        (MusicGen.load, builtin / "codec"),
        (load_embedder, embedder),
        (lambda folder: load_embedder(f"clap:{folder}"), clap),
        (lambda folder: read_config(folder, PreferenceScorer.name), scorer),
    ):
        path = folder / "config.json"
        original = path.read_bytes()
        path.write_bytes(text.encode("latin-1"))
        with pytest.raises(ValueError, match=f"'{path}' (is damaged|holds a list).*JSON object"):
            load(builtin if folder.parent == builtin else folder)
        path.write_bytes(original)


def test_a_missing_weight_is_named_not_drawn_at_random(builtin):
    path = builtin / "decoder" / "model.safetensors"
    weights = load_file(path)
    weights.pop("lm_heads.1.weight")
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lacks 1 weights.*lm_heads.1.weight"):
        MusicGen.load(builtin)


def test_another_type_of_model_is_refused(library):
    config = json.loads((library / "config.json").read_text())
    (library / "config.json").write_text(json.dumps(config | {"model_type": "bark"}))
    with pytest.raises(ValueError, match="'bark', expected 'musicgen'"):
        MusicGen.load(library)


def test_an_unreachable_hub_gives_one_clear_error(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="model 'nobody/nothing' cannot be loaded"):
        MusicGen.load("nobody/nothing")


def test_the_home_of_an_unknown_user_is_no_folder():
    with pytest.raises(ValueError, match="~nobody-of-that-name/x'.*no such folder"):
        resolve_model("~nobody-of-that-name/x")
