from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from qd.audio.facets import clip_facets
from qd.audio.resample import resample
from qd.config.protocols import Protocol
from qd.evaluation import measure as evaluate
from qd.evaluation.columns import METRICS
from qd.evaluation.evaluator import Evaluator
from qd.evaluation.measure import EvaluationModels, Sampling, evaluate_policy
from qd.evaluation.measurement import Measurement
from qd.metrics.bootstrap import bootstrap_interval
from qd.models.embedders.audio_vit import AudioViT
from qd.models.musicgen import MusicGen
from qd.models.sampling.sampler import Sampler, counter_uniforms
from qd.scorers.protocol import Quality
from tests.power_scorer import PowerScorer

PROMPTS = ["a calm piano piece", "fast drums", "a"]
SAMPLING = Sampling(seconds=0.32, seed=3)


class Loud(PowerScorer):
    """A score that depends on the audio and on the prompt."""

    def __call__(self, audio, sample_rate, prompts):
        return super().__call__(audio, sample_rate, prompts) + torch.tensor([float(len(p)) for p in prompts])


@pytest.fixture(scope="module")
def music(tiny_model) -> MusicGen:
    return MusicGen.load(tiny_model)


@pytest.fixture(scope="module")
def evaluation_models(tiny_embedder) -> EvaluationModels:
    other = AudioViT.from_pretrained(tiny_embedder)
    with torch.no_grad():
        other.projection.weight.mul_(-0.5).add_(0.1)
    return EvaluationModels(
        Quality(Loud("adherence"), Loud("preference")), AudioViT.from_pretrained(tiny_embedder), other
    )


@pytest.fixture(scope="module")
def measured(music, evaluation_models) -> Measurement:
    return evaluate_policy(music, PROMPTS, evaluation_models, SAMPLING, n_samples=3, eval_batch_size=9, audio_prompts=2)


@pytest.mark.parametrize("eval_batch_size", [1, 2, 4, 100])
def test_values_do_not_depend_on_the_batch(music, evaluation_models, measured, eval_batch_size):
    other = evaluate_policy(
        music, PROMPTS, evaluation_models, SAMPLING, n_samples=3, eval_batch_size=eval_batch_size, audio_prompts=2
    )
    for name in METRICS:
        np.testing.assert_allclose(other.per_prompt[name], measured.per_prompt[name], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(other.audio, measured.audio, atol=1e-5)
    assert other.cross_prompt_bound == pytest.approx(measured.cross_prompt_bound, rel=1e-4)


def test_values_against_a_loop_over_prompts(music, evaluation_models, measured):
    steps, stream, all_embeddings = music.frames(0.32) + 3, 2**62, []
    for p, prompt in enumerate(PROMPTS):
        audio, entropies = [], []
        for n in range(3):
            uniforms = counter_uniforms(SAMPLING.seed, stream, [3 * p + n], 4, steps)
            drawn = Sampler(music.lm).sample(
                music.condition([prompt]), 8, temperature=0.99, uniforms=lambda step, u=uniforms: u[..., step]
            )
            audio.append(music.decode(drawn.codes)[0])
            entropies.append(float(drawn.entropy))
        score = np.mean([float(clip.square().mean()) for clip in audio]) + len(prompt)
        assert measured.per_prompt["adherence"][p] == pytest.approx(score, rel=1e-4)
        assert measured.per_prompt["quality"][p] == pytest.approx(6 * score, rel=1e-4)
        assert measured.per_prompt["entropy"][p] == pytest.approx(np.mean(entropies), rel=1e-4)
        with torch.no_grad():
            embeddings = evaluation_models.embedder(torch.stack(audio))
            heldout = evaluation_models.eval_embedder(torch.stack(audio))
        for name, vectors in {"diversity": embeddings, "diversity_heldout": heldout}.items():
            pairs = [1 - float(vectors[i] @ vectors[j]) for i in range(3) for j in range(3) if i != j]
            assert measured.per_prompt[name][p] == pytest.approx(np.mean(pairs), rel=1e-3, abs=1e-6)
        assert 1.0 <= measured.per_prompt["vendi"][p] <= 3.0
        all_embeddings.append(embeddings)
        if p < 2:
            np.testing.assert_allclose(measured.audio[p], torch.stack(audio[:2]), atol=1e-5)
    across = [
        1 - float(all_embeddings[p][n] @ all_embeddings[q][n])
        for p in range(3) for q in range(3) if p != q for n in range(3)
    ]  # fmt: skip
    assert measured.cross_prompt_bound == pytest.approx(np.mean(across), rel=1e-3)
    assert measured.audio.shape == (2, 2, 8 * music.codec.samples_per_frame)


def test_audio_is_resampled_once_per_rate_and_omega_weights_adherence(music, evaluation_models, measured, monkeypatch):
    """One of the four models has another sample rate."""
    quality = Quality(Loud("adherence", sample_rate=24_000), Loud("preference"), 2.0)
    made = []

    def counted(audio, source_rate, target_rate):
        made.append(target_rate)
        return resample(audio, source_rate, target_rate)

    monkeypatch.setattr(evaluate, "resample", counted)
    others = replace(evaluation_models, quality=quality)
    values = evaluate_policy(music, PROMPTS, others, SAMPLING, n_samples=3, eval_batch_size=9).per_prompt
    assert sorted(made) == [16_000, 24_000]
    np.testing.assert_allclose(values["quality"], 2 * values["adherence"] + values["preference"], rtol=1e-5)
    np.testing.assert_array_equal(values["preference"], measured.per_prompt["preference"])
    np.testing.assert_array_equal(values["diversity"], measured.per_prompt["diversity"])
    assert (values["adherence"] != measured.per_prompt["adherence"]).all()
    assert others.description.startswith("2*adherence@1+preference@1 embedder@")


def test_facets_are_measured_on_the_audio_and_change_nothing_else(music, evaluation_models, measured):
    with_facets = replace(evaluation_models, facets=True)
    assert with_facets.description == evaluation_models.description
    other = evaluate_policy(music, PROMPTS, with_facets, SAMPLING, n_samples=2, eval_batch_size=4, audio_prompts=3)
    assert other.has_facets and not measured.has_facets
    for prompt, clips in enumerate(other.audio):
        expected = [clip_facets(clip) for clip in clips]
        assert other.per_prompt["loudness"][prompt] == pytest.approx(
            np.mean([one.loudness for one in expected]), rel=1e-4
        )
        difference = abs(expected[0].loudness - expected[1].loudness)
        assert other.per_prompt["loudness_spread"][prompt] == pytest.approx(difference, abs=1e-3)
    without = evaluate_policy(music, PROMPTS, evaluation_models, SAMPLING, n_samples=2, eval_batch_size=4)
    for name in without.per_prompt:
        np.testing.assert_array_equal(without.per_prompt[name], other.per_prompt[name])


def test_seed_guidance_and_weights_matter(music, evaluation_models, measured):
    def differs(sampling=SAMPLING, lm=None) -> bool:
        other = evaluate_policy(music, PROMPTS, evaluation_models, sampling, n_samples=3, lm=lm)
        return not np.allclose(other.per_prompt["entropy"], measured.per_prompt["entropy"], rtol=1e-5)

    other = copy.deepcopy(music.lm)
    with torch.no_grad():
        other.decoder.lm_heads[0].weight.mul_(1.5)
    assert differs(replace(SAMPLING, seed=4)) and differs(lm=other)
    assert differs(replace(SAMPLING, guidance_scale=3.0)) and differs(replace(SAMPLING, temperature=0.5))
    assert not differs(replace(SAMPLING, guidance_scale=1.0, negative="fast"))


def test_intervals_are_over_prompts(measured):
    assert measured.intervals()["vendi"] == bootstrap_interval(measured.per_prompt["vendi"])


def test_a_saved_measurement_is_the_same(measured, tmp_path):
    measured.save(tmp_path / "deep" / "m.npz")
    loaded = Measurement.load(tmp_path / "deep" / "m.npz")
    assert loaded.prompts == measured.prompts and loaded.cross_prompt_bound == measured.cross_prompt_bound
    for name in METRICS:
        np.testing.assert_array_equal(loaded.per_prompt[name], measured.per_prompt[name])
    np.testing.assert_allclose(loaded.audio, measured.audio, atol=2e-3)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["m.npz"]


def test_a_file_with_one_clip_a_prompt_is_read(measured, tmp_path):
    """Earlier versions wrote it."""
    replace(measured, audio=measured.audio[:, 0]).save(tmp_path / "m.npz")
    np.testing.assert_allclose(Measurement.load(tmp_path / "m.npz").audio, measured.audio[:, :1], atol=2e-3)


def test_too_little_to_measure(music, evaluation_models):
    with pytest.raises(ValueError, match="1 prompts"):
        evaluate_policy(music, ["a"], evaluation_models, SAMPLING)
    with pytest.raises(ValueError, match="2 samples"):
        evaluate_policy(music, PROMPTS, evaluation_models, SAMPLING, n_samples=1)


class TestEvaluator:
    @pytest.fixture
    def evaluator(self, music, evaluation_models, tmp_path) -> Evaluator:
        file = tmp_path / "prompts.txt"
        file.write_text("\n".join(PROMPTS))
        return Evaluator(music, evaluation_models, Protocol("quick", "development", 3, 2, 0.32, str(file)), seed=1)

    def test_key_depends_on_the_content(self, evaluator, music):
        plain, guided = evaluator.sampling(), evaluator.sampling(3.0, "bad")
        keys = [evaluator.key(music.lm, sampling) for sampling in (plain, guided)]
        assert keys[0] == evaluator.key(copy.deepcopy(music.lm), evaluator.sampling(1.0, "bad")) != keys[1]
        evaluator.eval_batch_size = 1
        assert evaluator.key(music.lm, plain) == keys[0]
        other = copy.deepcopy(music.lm)
        with torch.no_grad():
            next(other.parameters()).add_(1e-3)
        assert evaluator.key(other, plain) != keys[0]

    def test_recall_measures_once(self, evaluator, music, tmp_path, monkeypatch):
        sampling = evaluator.sampling()
        key = evaluator.key(music.lm, sampling)
        first = evaluator.recall(tmp_path / "references", key, music.lm, sampling)
        monkeypatch.setattr(evaluator, "measure", None)
        again = evaluator.recall(tmp_path / "references", key, music.lm, sampling)
        np.testing.assert_array_equal(first.per_prompt["quality"], again.per_prompt["quality"])

    def test_recall_measures_again_for_facets(self, evaluator, music, tmp_path):
        sampling = evaluator.sampling()
        key = evaluator.key(music.lm, sampling)
        assert not evaluator.recall(tmp_path, key, music.lm, sampling).has_facets
        evaluator.evaluation_models = replace(evaluator.evaluation_models, facets=True)
        assert evaluator.key(music.lm, sampling) == key
        assert evaluator.recall(tmp_path, key, music.lm, sampling).has_facets

    def test_recall_measures_again_for_more_audio(self, evaluator, music, tmp_path):
        sampling = evaluator.sampling()
        key = evaluator.key(music.lm, sampling)
        for wanted in (0, 2, 1):
            evaluator.audio_prompts = wanted
            assert evaluator.recall(tmp_path, key, music.lm, sampling).audio.shape[:2] == (wanted, 2)

    def test_point(self, evaluator, music):
        sampling = evaluator.sampling(2.0)
        measurement = evaluator.measure(music.lm, sampling)
        key = evaluator.key(music.lm, sampling)
        point = evaluator.point(measurement, key, sampling, run="r", model="m", step=7, beta=1.5, lam=0.25)
        assert point.protocol == evaluator.protocol.id and point.n_prompts == 3 and point.n_samples == 2
        assert (point.step, point.beta, point.lam, point.guidance_scale) == (7, 1.5, 0.25, 2.0)
        assert point.metrics["quality"].mean == pytest.approx(measurement.per_prompt["quality"].mean())
        for part in ("adherence@1", "preference@1", "embedder@", "heldout@"):
            assert part in point.scorers
