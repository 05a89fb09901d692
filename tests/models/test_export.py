"""The transformers library can use the weights of a run by itself, in processes that never import this project."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoProcessor, MusicgenForCausalLM, MusicgenForConditionalGeneration, T5EncoderModel

from qd.callbacks.step_folders import StepFolders
from qd.commands.merge import merge
from qd.config.policy import ModelConfig
from qd.models.musicgen import MusicGen
from qd.models.sampling.sampler import Sampler
from qd.modules.policy import load_policy

PROMPT = "a calm piano"
FRAMES = 16

PIPELINE = """
import numpy as np
np.save("sampled.npy", audio)
np.save("greedy.npy", music("a calm piano", generate_kwargs={"do_sample": False})["audio"])
assert sample_rate == 4000, sample_rate
"""
PARTS = """
import torch
states = text_encoder(**tokenizer("a calm piano", return_tensors="pt")).last_hidden_state
codes = torch.full((decoder.config.num_codebooks, 1), decoder.config.pad_token_id)
projected = states @ torch.eye(states.shape[-1], decoder.config.hidden_size)
torch.save((states, decoder(codes, encoder_hidden_states=projected).logits), "parts.pt")
assert decoder.generation_config.temperature == 0.9 and decoder.generation_config.top_k == 0
"""
PROGRAM = """
import os, re, sys
for folder, more in zip(sys.argv[1::2], sys.argv[2::2]):
    os.chdir(folder)
    (code,) = re.findall("```python\\n(.*?)```", open("README.md", encoding="utf-8").read(), flags=re.DOTALL)
    exec(code + more, {})
assert "transformers" in sys.modules and not any(name.split(".")[0] == "qd" for name in sys.modules)
"""


def save_step(folder: Path, checkpoint: Path, dtype: str = "float32") -> Path:
    """Saves a step folder like a run of the checkpoint."""
    music = load_policy(ModelConfig(str(checkpoint), dtype=dtype))
    with torch.no_grad():
        for weight in music.lm.parameters():
            weight += 0.01  # trained
    config = {
        "beta": 15.0,
        "model": {"name": str(checkpoint)},
        "guidance": {"scale": 3.0, "negative_prompt": "bad quality"},
        "rollout": {"temperature": 0.9, "seconds": FRAMES / music.codec.frame_rate},
        "trainer": {"max_steps": 4},
        "data": {"batch_size": 8},
    }
    callback = StepFolders(folder, every=4, keep=None, recipe={"run": "x", "config": config})
    trainer = SimpleNamespace(global_step=4, max_steps=4, is_global_zero=True)
    callback.on_step_end(trainer, SimpleNamespace(music=music))
    return folder / "step-000004"


@pytest.fixture(scope="module")
def exported(tmp_path_factory, make_library_model, encodec_checkpoint, tiny_model) -> dict[str, Path]:
    """Three step folders and merges; another process has run the code of each card, and some test code, in them."""
    root = tmp_path_factory.mktemp("export")
    make_library_model(channels=2).save_pretrained(root / "base")
    MusicGen.load(encodec_checkpoint).tokenizer.save_pretrained(root / "base")
    bases = {"mono": encodec_checkpoint, "stereo": root / "base", "parts": tiny_model}
    folders = {name: save_step(root / name, checkpoint) for name, checkpoint in bases.items()}
    for name in ("mono", "parts"):
        folders[f"merged {name}"] = merge(str(folders[name]), str(bases[name]), lam=0.3, out=root / f"merged {name}")
    added = {name: PARTS if name.endswith("parts") else PIPELINE for name in folders}
    arguments = [text for name, folder in folders.items() for text in (str(folder), added[name])]
    result = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return folders


@torch.no_grad()
def greedy(folder: Path) -> torch.Tensor:
    """This project's clip ``(samples,)`` of the likeliest codes, averaged over channels."""
    music = MusicGen.load(folder)
    return music.decode(Sampler(music.lm).sample(music.condition([PROMPT]), FRAMES, greedy=True).codes)[0]


@pytest.mark.parametrize(
    ("name", "shape"), [("mono", (FRAMES * 8,)), ("stereo", (2, FRAMES * 8)), ("merged mono", (FRAMES * 8,))]
)
def test_an_encodec_model_runs_in_a_pipeline(name, shape, exported):
    likeliest, sampled = (torch.from_numpy(np.load(exported[name] / f"{kind}.npy")) for kind in ("greedy", "sampled"))
    assert likeliest.shape == sampled.shape == shape
    mixed = likeliest.view(-1, FRAMES * 8).mean(dim=0)
    torch.testing.assert_close(mixed, greedy(exported[name]), atol=1e-4, rtol=1e-4)
    assert not torch.equal(likeliest, sampled) and sampled.isfinite().all()


def test_the_pipeline_samples_as_the_training_did(encodec_checkpoint, tmp_path):
    checkpoint = tmp_path / "guided"
    MusicGen.load(encodec_checkpoint).save(checkpoint)
    settings = json.loads((checkpoint / "generation_config.json").read_text())
    (checkpoint / "generation_config.json").write_text(json.dumps(settings | {"guidance_scale": 3.0, "max_length": 99}))
    saved = json.loads((save_step(tmp_path / "run", checkpoint) / "generation_config.json").read_text())
    expected = {"do_sample": True, "temperature": 0.9, "top_k": 0, "guidance_scale": 1.0, "max_new_tokens": FRAMES + 3}
    expected |= dict.fromkeys(("decoder_start_token_id", "bos_token_id", "pad_token_id"), 16)
    assert saved.items() >= expected.items() and saved.get("max_length") is None
    processor = AutoProcessor.from_pretrained(tmp_path / "run" / "step-000004")
    assert processor.feature_extractor.feature_size == 1 and processor.tokenizer.eos_token == "</s>"


@torch.no_grad()
@pytest.mark.parametrize("name", ["parts", "merged parts"])
def test_the_parts_of_a_built_in_model_load(name, exported):
    states, logits = torch.load(exported[name] / "parts.pt", weights_only=True)
    music = MusicGen.load(exported[name])
    torch.testing.assert_close(states, music.condition([PROMPT]).states)
    start = torch.full((music.lm.codebooks, 1), music.lm.pad)
    projected = states @ torch.eye(states.shape[-1], music.lm.decoder.config.hidden_size)
    torch.testing.assert_close(logits, music.lm.decoder(start, encoder_hidden_states=projected).logits)
    assert load_file(exported[name] / "projection.safetensors")["weight"].shape == music.lm.projection.weight.shape


@pytest.mark.parametrize("layout", ["encodec_checkpoint", "tiny_model"])
def test_a_text_encoder_in_bfloat16_does_not_round_other_parts(layout, request, tmp_path):
    checkpoint = request.getfixturevalue(layout)
    start, step = tmp_path / "start", save_step(tmp_path, checkpoint, "bfloat16")
    load_policy(ModelConfig(str(checkpoint), dtype="bfloat16")).save(start)
    for folder in (
        step,
        merge(str(step), str(start), lam=0.3, out=tmp_path / "merged"),
        merge(str(step), str(checkpoint), out=tmp_path / "mixed"),
    ):
        assert not any("bfloat16" in config.read_text() for config in folder.rglob("config.json"))
        if layout == "encodec_checkpoint":
            model = MusicgenForConditionalGeneration.from_pretrained(folder)
            parts, codec = (model.decoder, model.text_encoder), model.audio_encoder.state_dict()
            torch.testing.assert_close(codec, MusicGen.load(checkpoint).codec.model.state_dict(), rtol=0, atol=0)
        else:
            kinds = {"decoder": MusicgenForCausalLM, "text_encoder": T5EncoderModel}
            parts = tuple(kind.from_pretrained(folder / name) for name, kind in kinds.items())
        saved = MusicGen.load(folder)
        for part, own in zip(parts, (saved.lm.decoder, saved.text_encoder), strict=True):
            assert {weight.dtype for weight in part.parameters()} == {torch.float32}
            torch.testing.assert_close(part.state_dict(), own.state_dict(), rtol=0, atol=0)
    trained, first = (MusicGen.load(folder).lm.parameters() for folder in (step, checkpoint))
    assert all(torch.equal(weight, before + 0.01) for weight, before in zip(trained, first, strict=True))
