"""The adapters of MuQ and MuQ-MuLan, compared with stand-ins of the package, and with the package if installed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from tokenizers.pre_tokenizers import ByteLevel
from transformers import RobertaTokenizer, Wav2Vec2ConformerConfig, XLMRobertaConfig, XLMRobertaModel

from qd.models.checkpoints.pretrained import load_hub_mixin
from qd.models.embedders.loading import Embedder, load_embedder
from qd.models.embedders.muq import with_transformers_5
from qd.scorers.loading import load_adherence
from tests.scorers.stand_ins import LATENT, WIDTH, MuQ, MuQMuLan

RATE = 24_000
PROMPTS = ["a waltz", "techno with a loud bass", "a waltz"]


def clips(count: int, seconds: float) -> torch.Tensor:
    noise = 0.1 * torch.randn(count, round(seconds * RATE), generator=torch.Generator().manual_seed(0))
    return noise * torch.linspace(0.5, 2, count)[:, None] + 0.01


def test_the_embedding_is_the_mean_of_the_last_states(published):
    embedder, model = load_embedder(f"muq:{published / 'muq'}"), MuQ.from_pretrained(published / "muq")
    assert isinstance(embedder, Embedder)
    assert (embedder.sample_rate, embedder.embedding_width, embedder.clip_seconds) == (RATE, WIDTH, 10.0)
    audio = clips(2, 4.0)
    with torch.no_grad():
        expected = F.normalize(model(audio).last_hidden_state.mean(dim=1), dim=-1)
    torch.testing.assert_close(embedder(audio, RATE), expected)
    assert not embedder.train().training and not any(p.requires_grad for p in embedder.parameters())


def test_long_audio_is_embedded_in_windows_and_short_audio_is_padded(published):
    embedder = load_embedder(f"muq:{published / 'muq'}")
    first, second = clips(2, 10.0)
    mean = embedder(torch.stack([first, second])).mean(0)
    torch.testing.assert_close(embedder(torch.cat([first, second])[None])[0], mean / mean.norm())
    short = clips(1, 0.01)
    torch.testing.assert_close(embedder(short), embedder(F.pad(short, (0, RATE - short.shape[1]))))
    torch.testing.assert_close(embedder(torch.zeros(1, 1)).norm(), torch.tensor(1.0))


def test_adherence_is_the_cosine_of_each_clip_with_its_own_prompt(published):
    scorer, model = load_adherence(f"muq-mulan:{published / 'mulan'}"), MuQMuLan.from_pretrained(published / "mulan")
    audio = clips(3, 4.0)
    with torch.no_grad():
        text = torch.cat([model(texts=[prompt]) for prompt in PROMPTS])
        expected = (model(wavs=audio) * text).sum(dim=1)
        padded = (model(wavs=audio) * model(texts=PROMPTS)).sum(dim=1)
    torch.testing.assert_close(scorer(audio, RATE, PROMPTS), expected)
    assert (expected - padded).abs().max() > 0.01  # the texts' padding would change the scores
    assert (scorer.name, scorer.sample_rate, scorer.audio.embedding_width) == ("muq-mulan", RATE, LATENT)


def test_weights_are_in_memory_once_and_define_the_version(published, tmp_path):
    scorer = load_adherence(f"muq-mulan:{published / 'mulan'}")
    assert sum(p.numel() for p in scorer.parameters()) == 3 * LATENT + 128 * LATENT
    weights = load_file(published / "mulan/model.safetensors")
    save_file({**weights, "audio.bias": weights["audio.bias"] + 1}, published / "mulan/model.safetensors")
    assert load_adherence(f"muq-mulan:{published / 'mulan'}").version != scorer.version


def test_missing_weights_and_models_are_reported(published, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    weights = load_file(published / "muq/model.safetensors")
    del weights["linear.bias"]
    save_file(weights, published / "muq/model.safetensors")
    with pytest.raises(ValueError, match="lacks 1 weights.*linear.bias"):
        load_embedder(f"muq:{published / 'muq'}")
    (published / "muq/model.safetensors").rename(published / "muq/pytorch_model.bin")
    with pytest.raises(ValueError, match=r"muq' lacks model.safetensors.*pickled"):
        load_embedder(f"muq:{published / 'muq'}")
    with pytest.raises(ValueError, match="does not exist.*hub name"):
        load_embedder("muq:no-such-folder")


def test_only_needed_files_of_a_hub_model_are_downloaded(published, monkeypatch):
    requests = []
    monkeypatch.setattr(
        "qd.models.checkpoints.pretrained.snapshot_download",
        lambda name, **options: requests.append((name, options)) or str(published / "muq"),
    )
    monkeypatch.setattr("qd.models.checkpoints.pretrained.hub_commit", lambda name, revision: "c0ffee")
    load_embedder("muq:owner/name")
    patterns = ["config.json", "model.safetensors"]
    assert requests == [("owner/name", {"revision": "c0ffee", "allow_patterns": patterns})]


def test_the_missing_extra_is_named(no_packages, tmp_path):
    for load, name in ((load_embedder, "muq"), (load_adherence, "muq-mulan")):
        with pytest.raises(ValueError, match=r"package 'muq'.*pip install -e '\.\[muq\]'"):
            load(f"{name}:{tmp_path}")


def real_muq(folder: Path):
    """The package's own model in a small size: the published mel spectrogram and a conformer with 2 layers."""
    muq = pytest.importorskip("muq", exc_type=ImportError, reason="the extra `muq` is not installed")
    settings = Wav2Vec2ConformerConfig(
        num_attention_heads=2,
        intermediate_size=64,
        position_embeddings_type="rotary",
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
    ).to_dict()
    conformer = {name: value for name, value in settings.items() if not isinstance(value, dict)}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        muq.MuQ(
            muq.MuQConfig(
                encoder_dim=32,
                encoder_depth=2,
                conv_dim=8,
                codebook_size=1024,
                use_rvq_target=True,
                stat={"melspec_2048_mean": 6.77, "melspec_2048_std": 18.4},
                w2v2_config=conformer,
            )  # fmt: skip
        ).save_pretrained(folder)
    return load_hub_mixin(muq.MuQ, str(folder))


def test_the_real_package_embeds_like_its_layers_one_by_one(tmp_path):
    model, audio = with_transformers_5(real_muq(tmp_path / "muq")), clips(2, 2.0)
    features = model.model.preprocessing(audio, ["melspec_2048"])
    states = model.model.conv(model.model.normalize(features)["melspec_2048"])
    encoder, expected = model.model.conformer, []
    with torch.no_grad():
        positions = encoder.embed_positions(states)
        for layer in encoder.layers:
            expected.append(states)
            states = layer(states, attention_mask=None, relative_position_embeddings=positions)
            states = states[0] if isinstance(states, tuple) else states
        expected.append(encoder.layer_norm(states))
        hidden = model(audio, output_hidden_states=True).hidden_states
    assert len(hidden) == 3
    for ours, theirs in zip(hidden, expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    embedding = load_embedder(f"muq:{tmp_path / 'muq'}")(audio, RATE)
    torch.testing.assert_close(embedding, F.normalize(hidden[-1].mean(dim=1), dim=-1))
    assert load_embedder(f"muq:{tmp_path / 'muq'}")(torch.zeros(1, 1)).isfinite().all()


def test_the_adapter_scores_like_the_real_mulan(tmp_path):
    """Its text tower is an XLM-RoBERTa, whose name must contain "xlm-roberta"."""
    real_muq(tmp_path / "muq")
    from muq import MuQMuLan as RealMuLan

    name = tmp_path / "xlm-roberta"
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    vocabulary = {token: i for i, token in enumerate([*special, *sorted(ByteLevel.alphabet()), "<mask>"])}
    RobertaTokenizer(vocab=vocabulary, merges=[]).save_pretrained(name)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    layers = {"dim": 16, "tf_depth": 1, "heads": 2, "dim_head": 8, "ff_mult": 2}
    config = {
        "mulan": {"sr": RATE, "clip_secs": 10, "dim_latent": 12, "rank_contrast": True},
        "audio_model": {"name": str(tmp_path / "muq"), "model_dim": 32, "use_layer_idx": -1},
        "text_model": {"name": str(name), "model_dim": 16, "use_layer_idx": -1},
        "audio_transformer": layers,
        "text_transformer": {**layers, "max_seq_len": 64},
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        XLMRobertaModel(XLMRobertaConfig(vocab_size=261, **sizes)).save_pretrained(name)
        RealMuLan(config).save_pretrained(tmp_path / "mulan", config=config)
    scorer, model = (
        load_adherence(f"muq-mulan:{tmp_path / 'mulan'}"),
        load_hub_mixin(RealMuLan, str(tmp_path / "mulan")),
    )
    audio = clips(3, 4.0)
    with torch.no_grad():
        embeddings, texts = (
            with_transformers_5(model)(wavs=audio),
            torch.cat([model(texts=[prompt]) for prompt in PROMPTS]),
        )
        expected = model.calc_similarity(embeddings, texts).diagonal()
    torch.testing.assert_close(scorer(audio, RATE, PROMPTS), expected)
    assert scorer(torch.zeros(1, 1), RATE, ["a"]).isfinite().all()
