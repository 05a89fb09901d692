"""``make base``: order, inputs, complete stages, installing; and, marked slow, the whole quick chain."""

from __future__ import annotations

import math
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
import yaml

from qd.builtin.codec import CodecPretraining
from qd.cli import main as cli
from qd.commands import base
from qd.config.loading import ConfigError, config_folder, load_config
from qd.models.checkpoints.resolver import checkpoint_problems
from qd.models.codecs.codec import CodecConfig, FrameCodec
from qd.models.musicgen import MusicGen


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
    """Replaces the work of every stage by writing the files that it ends with; lists the calls in order."""
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
        base, "train_embedder", lambda config, resume, recover: record(config.name, asset="embedder")(config, resume)
    )
    monkeypatch.setattr(base, "ASSETS", tmp_path / "assets")
    return calls


def test_stages_run_in_order_with_the_earlier_results(calls, overlay, tmp_path):
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


def test_complete_stages_are_skipped(calls, overlay):
    base.build(["tokens", "codec"], overlay())
    assert [stage for stage, *_ in calls] == ["codec", "tokens"]
    base.build(["codec", "base"], overlay())
    assert [stage for stage, *_ in calls] == ["codec", "tokens", "base"]


def test_stages_that_check_their_inputs_always_run(calls, overlay):
    base.build(config=overlay())
    calls.clear()
    base.build(config=overlay())
    assert [stage for stage, *_ in calls] == ["tokens", "gate"]


def test_complete_tokens_of_another_codec_are_an_error(overlay, tmp_path):
    def save_codec(seed: int) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            config = CodecConfig(n_mels=20, width=16, latent_width=8, codebook_size=16)
            FrameCodec(config).save_pretrained(tmp_path / "work/codec/asset")
        (tmp_path / "work/codec/asset/README.md").touch()

    settings = overlay(tokens={"clips": 2, "validation_clips": 1, "seconds": 0.4, "workers": 0}, base={"batch_size": 2})
    save_codec(seed=0)
    for _ in range(2):  # a second time changes nothing
        base.build(["tokens"], settings)
    save_codec(seed=1)
    for stages in (["tokens"], ["codec", "tokens"]):
        with pytest.raises(ValueError, match="another codec"):
            base.build(stages, settings)
    with pytest.raises(ValueError, match="codec .*stage 'tokens'"):
        base.build(["base"], settings)


def test_ctrl_c_says_how_to_resume_and_the_status_is_130(calls, overlay, tmp_path, monkeypatch, capsys):
    def stopped(*arguments):
        raise KeyboardInterrupt("step 3 is saved")

    monkeypatch.setattr(base.codec, "run", stopped)
    monkeypatch.chdir(tmp_path)  # where nothing is built yet
    assert cli.main(["base"]) == 130
    assert capsys.readouterr().err.endswith("in runs/base/codec; to resume: make base\n")
    path = overlay()
    assert cli.main(["base", "--stage", "codec", "tokens", "--config", path, "--install"]) == 130
    assert f"to resume: make base STAGE='codec tokens' CONFIG={path} ARGS=--install\n" in capsys.readouterr().err
    assert calls == [] and not (tmp_path / "assets").exists()


def test_a_signal_in_a_stage_saves_the_step_and_the_next_build_resumes(overlay, tmp_path, monkeypatch, capsys):
    def interrupt(self, batch, batch_index):
        if self.global_step + 1 == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    settings = {"seconds": 0.3, "batch_size": 1, "max_steps": 3, "warmup_steps": 1, "validation_clips": 1}
    command = ["base", "--stage", "codec", "--config", overlay(codec={**settings, "device": "cpu"})]
    with monkeypatch.context() as patch:
        patch.setattr(CodecPretraining, "on_train_batch_start", interrupt)
        assert cli.main(command) == 128 + signal.SIGTERM
    last = tmp_path / "work/codec/last.ckpt"
    assert torch.load(last, weights_only=True)["global_step"] == 2
    assert "to resume: make base STAGE=codec CONFIG=" in capsys.readouterr().err
    assert cli.main(command) == 0
    assert torch.load(last, weights_only=True)["global_step"] == 3


def test_an_embedder_resumes_only_from_a_checkpoint(calls, overlay, tmp_path):
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


def test_the_gate_stage_without_others_measures_the_shipped_model(calls, overlay, tmp_path):
    base.build(config=overlay(), install=True)
    shutil.rmtree(tmp_path / "work")
    base.build(["gate"], overlay())
    assert calls[-1][::2] == ("gate", [tmp_path / "assets/base", tmp_path / "work/gate"])


def test_nothing_is_installed_by_default(calls, overlay, tmp_path):
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


BAD = {
    "seed": -1,
    "codec": {"batch_size": 0, "seconds": 0.05, "learning_rate": math.nan, "device": "cdu", "validation_clips": 0},
    "tokens": {"clips": 4, "seconds": 17.0, "workers": -1},
    "base": {"max_steps": 0, "average_decay": 1.0, "vocabulary": 9, "model": {"layers": 0, "heads": 3}},
    "adherence": {"validation_clips": 127, "warmup_steps": 560, "model": {"text": {"heads": 3}, "audio": {"width": 0}}},
    "preference": {"comparisons": 48, "checkpoint_every": 0, "precision": "bf16", "weight_decay": math.inf},
    "embedder": {"config": "defualt"},
    "embedder_heldout": {"overrides": ["optimizer.learning_rate=0", "data.pairs=2", "name=x", "trainer.log_every=0"]},
    "gate": {"seed": -1, "protocol": "papre", "scales": [1.5, math.inf], "gate_scale": 3.0},
}
EXPECTED = """
seed is -1; | codec.batch_size is 0; | codec.seconds is 0.05, 640 samples | codec.learning_rate is nan;
codec.device: device='cdu' | codec.validation_clips is 0; | tokens.seconds is 17.0; | tokens.workers is -1;
tokens.clips is 4; expected base.batch_size=32 | base.max_steps is 0; | base.warmup_steps is 200;
base.average_decay is 1.0; | base.vocabulary is 9; expected an integer, 259 or more | base.model.layers is 0;
base.model.heads is 3; expected a divisor of base.model.hidden_size=256 | adherence.validation_clips is 127;
adherence.warmup_steps is 560; | adherence.model.text.heads is 3; | adherence.model.audio.width is 0;
preference.comparisons is 48; expected 1 to 47 | preference.checkpoint_every is 0; | preference.precision is 'bf16';
preference.weight_decay is inf; | embedder: there is no config | embedder_heldout: override 'name=x' moves
embedder_heldout: optimizer.learning_rate is 0 | unknown key 'data.pairs' | embedder_heldout: trainer.log_every is 0
gate.seed is -1; | gate.protocol is 'papre'; expected one of quick, full, paper, two-samples; did you mean 'paper'?
gate.scales is inf;
gate.gate_scale is 3; expected one of gate.scales, which are 1.5, inf
"""


def test_all_bad_values_of_all_stages_are_reported_together(calls, overlay, tmp_path):
    with pytest.raises(ConfigError) as error:
        base.build(["gate"], overlay(**BAD))
    expected = [text.strip() for line in EXPECTED.strip().splitlines() for text in line.split(" | ")]
    assert [text for text in expected if text not in str(error.value)] == []
    assert len(error.value.problems) == len(expected), str(error.value)
    assert calls == [] and not (tmp_path / "work").exists()


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
