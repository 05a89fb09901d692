"""``make base``: order, passing on, passing over, installing; and, marked slow, the whole quick chain."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml

from qd.builtin.pretrain import base
from qd.config import ConfigError, config_folder, load_config
from qd.models.musicgen import MusicGen
from qd.models.resolver import checkpoint_problems


@pytest.fixture
def overlay(tmp_path):
    """Writes an overlay that works in ``tmp_path / "work"``, and returns its path."""

    def write(**settings) -> str:
        path = tmp_path / "overlay.yaml"
        path.write_text(yaml.safe_dump({"folder": str(tmp_path / "work"), **settings}))
        return str(path)

    return write


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """Replaces the work of every stage by writing the files that it ends with; lists the calls as they come."""
    calls = []

    def record(stage: str, asset: str = "asset", last: str = "README.md"):
        def run(*arguments, **options):
            config, *paths = arguments
            calls.append((stage, config, paths))
            folder = tmp_path / "work" / stage / asset
            folder.mkdir(parents=True, exist_ok=True)
            (folder / last).write_text(f"# {stage}\n")
            (folder / "gate.md").write_text("## The gate\n\nPassed\n")

        return run

    for stage, module in {"codec": base.codec, "adherence": base.adherence, "preference": base.preference}.items():
        monkeypatch.setattr(module, "run", record(stage))
    monkeypatch.setattr(base.tokens, "run", record("tokens", asset=""))
    monkeypatch.setattr(base.language_model, "run", record("base"))
    monkeypatch.setattr(base.gate, "run", record("gate", asset="", last="gate.json"))
    monkeypatch.setattr(
        base, "train_embedder", lambda config, resume: record(config.name, asset="embedder")(config, resume)
    )
    monkeypatch.setattr(base, "ASSETS", tmp_path / "assets")
    return calls


def test_stages_run_in_order_and_get_what_came_before(calls, overlay, tmp_path):
    work = tmp_path / "work"
    assets = base.build(config=overlay(seed=5))
    assert [stage for stage, *_ in calls] == list(base.STAGES) == list(assets)
    by_stage = {stage: (config, paths) for stage, config, paths in calls}
    assert by_stage["tokens"][1] == [work / "tokens", work / "codec/asset"]
    assert by_stage["base"][1] == [work / "base", work / "tokens", work / "codec/asset"]
    assert by_stage["gate"][1] == [work / "base/asset", work / "gate"]
    codecs = [by_stage[stage][0].codec for stage in ("adherence", "preference")]
    codecs += [by_stage[stage][0].codec.model for stage in ("embedder", "embedder_heldout")]
    assert codecs == [str(work / "codec/asset")] * 4
    assert [by_stage[stage][0].seed for stage in ("codec", "base", "gate", "embedder", "embedder_heldout")] == [
        5,
        5,
        5,
        5,
        6,
    ]


def test_complete_stages_are_passed_over(calls, overlay):
    base.build(["tokens", "codec"], overlay())
    assert [stage for stage, *_ in calls] == ["codec", "tokens"]
    base.build(["codec", "tokens", "base"], overlay())
    assert [stage for stage, *_ in calls] == ["codec", "tokens", "base"]


def test_a_begun_embedder_is_resumed_and_a_barely_begun_one_is_not(calls, overlay, tmp_path):
    base.build(["codec"], overlay())
    for stage in ("embedder", "embedder_heldout"):
        (tmp_path / "work" / stage).mkdir()
    (tmp_path / "work/embedder/last.ckpt").touch()
    base.build(["embedder", "embedder_heldout"], overlay())
    resumed = [(stage, paths) for stage, _, paths in calls[1:]]
    assert resumed == [("embedder", [tmp_path / "work/embedder"]), ("embedder_heldout", [None])]


def test_install_copies_and_the_gate_ends_the_card(calls, overlay, tmp_path):
    for _ in range(2):  # a second time changes nothing
        base.build(config=overlay(), install=True)
        installed = {str(path.parent.relative_to(tmp_path / "assets")) for path in tmp_path.glob("assets/**/README.md")}
        assert installed == {"base", "base/codec", "adherence", "preference", "embedder", "embedder_heldout"}
        assert (tmp_path / "assets/base/README.md").read_text() == "# base\n\n## The gate\n\nPassed\n"


def test_the_gate_alone_measures_the_shipped_model(calls, overlay, tmp_path):
    base.build(config=overlay(), install=True)
    shutil.rmtree(tmp_path / "work")
    base.build(["gate"], overlay())
    assert calls[-1][::2] == ("gate", [tmp_path / "assets/base", tmp_path / "work/gate"])


def test_nothing_is_installed_unasked(calls, overlay, tmp_path):
    base.build(config=overlay())
    assert not (tmp_path / "assets").exists()


def test_bad_input(calls, overlay):
    with pytest.raises(ValueError, match="unknown stage bass: expected some of codec, tokens, base"):
        base.build(["bass"], overlay())
    with pytest.raises(ValueError, match="'codec' is not complete.*run `qd base --stage codec`"):
        base.build(["tokens"], overlay())
    with pytest.raises(ConfigError) as error:
        base.build(["tokens"], overlay(tokens={"clips": 0}, base={"batch_size": 0}))
    assert "tokens.clips is 0" in str(error.value) and "base.batch_size is 0" in str(error.value)
    assert calls == []


@pytest.mark.parametrize("name", sorted(path.stem for path in (config_folder() / "base").glob("*.yaml")))
def test_shipped_configs_load(name):
    config = load_config(base.BaseConfig, "base", name)
    assert isinstance(config, base.BaseConfig) and config.problems() == []


@pytest.mark.slow
def test_quick_chain(tmp_path):
    settings = yaml.safe_load((config_folder() / "base/quick.yaml").read_text())
    path = Path(tmp_path / "quick.yaml")
    path.write_text(yaml.safe_dump({**settings, "folder": str(tmp_path / "work")}))
    stages = [stage for stage in base.STAGES if stage != "gate"]  # the gate measures with what is installed
    assets = base.build(stages, str(path))
    assert checkpoint_problems(assets["base"]) == []
    assert len(MusicGen.load(assets["base"]).condition(["A slow waltz."])) == 1
    for stage in ("codec", "adherence", "preference", "embedder", "embedder_heldout"):
        assert {"config.json", "model.safetensors", "README.md"} <= {file.name for file in assets[stage].iterdir()}
