from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from qd.builtin.codec import CodecStageConfig, run, training_example
from qd.builtin.codec_quality import codebook_use
from qd.models.codecs.codec import CodecConfig, FrameCodec

TINY = CodecConfig(width=16, encoder_depths=(1, 1), decoder_depths=(1, 1), latent_width=8, codebook_size=16)


def test_stage_writes_a_loadable_measured_asset(tmp_path):
    config = CodecStageConfig(seconds=0.3, batch_size=2, max_steps=3, validation_clips=1, device="cpu", codec=TINY)
    asset = run(config, tmp_path)
    codec = FrameCodec.from_pretrained(asset)
    assert codec.config == TINY
    assert codec.quantizer.initialised
    metrics = json.loads((asset / "metrics.json").read_text())["metrics"]
    assert {"spectral", "log_mel_l1", "librosa_spectral", "librosa_log_mel_l1", "usage", "perplexity"} == set(metrics)
    assert all(np.isfinite(metrics[name]) for name in metrics if name not in ("usage", "perplexity"))
    assert len(metrics["usage"]) == len(metrics["perplexity"]) == 4


def test_examples_differ_by_index_and_seed():
    first, same, next_index, next_seed = (
        training_example(index, seed, 0.2)["audio"] for index, seed in ((0, 0), (0, 0), (1, 0), (0, 1))
    )
    assert first.shape == (3200,)
    assert np.array_equal(first, same)
    assert not np.array_equal(first, next_index)
    assert not np.array_equal(first, next_seed)


def test_too_short_clips_are_refused(tmp_path):
    with pytest.raises(ValueError, match="seconds=0.03"):
        run(CodecStageConfig(seconds=0.03, codec=TINY, device="cpu"), tmp_path)


def test_codebook_use_counts_codes():
    codes = torch.tensor([[0, 1, 2, 3], [5, 5, 5, 5], [0, 0, 7, 7]])[None]
    usage, perplexity = codebook_use(codes, 8)
    assert usage == [0.5, 0.125, 0.25]
    assert perplexity == pytest.approx([4.0, 1.0, 2.0])
