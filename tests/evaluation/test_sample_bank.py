from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from qd.config.protocols import Protocol
from qd.evaluation.evaluator import Evaluator
from qd.evaluation.measure import EvaluationModels, Sampling
from qd.evaluation.sample_bank import SampleBank
from qd.metrics.headroom import ScoredSamples
from qd.models.embedders.audio_vit import AudioViT
from qd.models.musicgen import MusicGen
from qd.scorers.protocol import Quality
from tests.power_scorer import PowerScorer

PROMPTS = ("a calm piano piece", "fast drums")
SAMPLING = Sampling(seconds=0.32, seed=3)

MakeBank = Callable[..., SampleBank]


@pytest.fixture(scope="module")
def evaluator(tiny_model, tiny_embedder) -> Evaluator:
    embedder = AudioViT.from_pretrained(tiny_embedder)
    models = EvaluationModels(Quality(PowerScorer("adherence"), PowerScorer("preference")), embedder, embedder)
    return Evaluator(MusicGen.load(tiny_model), models, Protocol("quick", "development", 2, 2, 0.32), eval_batch_size=3)


@pytest.fixture
def make_bank(evaluator, tmp_path) -> MakeBank:
    def make(*prompts: str, folder: Path = tmp_path / "bank", weights: str = "weights", rows: int = 3) -> SampleBank:
        own = replace(evaluator, eval_batch_size=rows)
        own.prompts = list(prompts)
        return SampleBank(folder, own, weights)

    return make


def assert_close(one: ScoredSamples, other: ScoredSamples) -> None:
    torch.testing.assert_close(one.embeddings, other.embeddings)
    torch.testing.assert_close(dict(one.scores), dict(other.scores))


def test_samples_have_their_shapes_and_differ(make_bank: MakeBank) -> None:
    drawn = make_bank(*PROMPTS).samples(SAMPLING, 4)
    assert drawn.embeddings.shape[:2] == (2, 4) and drawn.scores["quality"].shape == (2, 4)
    assert len(torch.unique(drawn.scores["quality"])) == 8


def test_samples_on_disk_are_not_drawn_again(make_bank: MakeBank, monkeypatch: pytest.MonkeyPatch) -> None:
    bank, counts = make_bank(*PROMPTS), []
    first = bank.samples(SAMPLING, 4, counts.append)
    assert sum(counts) == 8 and bank.missing(SAMPLING, 6) == 4
    more = bank.samples(SAMPLING, 6, counts.append)
    assert sum(counts) == 12
    assert torch.equal(more.embeddings[:, :4], first.embeddings)
    monkeypatch.setattr(SampleBank, "_draw", None)
    assert torch.equal(make_bank(PROMPTS[1]).samples(SAMPLING, 5).embeddings, more.embeddings[1:, :5])


def test_a_sample_depends_only_on_its_prompt_and_number(make_bank: MakeBank, tmp_path: Path) -> None:
    other = make_bank(*PROMPTS[::-1], folder=tmp_path / "other", rows=2).samples(SAMPLING, 5)
    reversed_scores = {name: scores.flip(0) for name, scores in other.scores.items()}
    reversed_samples = ScoredSamples(other.embeddings.flip(0), other.eval_embeddings.flip(0), reversed_scores)
    assert_close(make_bank(*PROMPTS).samples(SAMPLING, 5), reversed_samples)


def test_other_weights_prompts_and_sampling_have_other_files(make_bank: MakeBank, tmp_path: Path) -> None:
    others = [
        (make_bank(PROMPTS[0]), SAMPLING),
        (make_bank(PROMPTS[1]), SAMPLING),
        (make_bank(PROMPTS[0]), replace(SAMPLING, seed=4)),
        (make_bank(PROMPTS[0]), replace(SAMPLING, guidance_scale=3.0)),
        (make_bank(PROMPTS[0], weights="other weights"), SAMPLING),
    ]
    for bank, sampling in others:
        bank.samples(sampling, 2)
    assert len(list((tmp_path / "bank").iterdir())) == len(others)


def test_a_damaged_file_is_drawn_again(make_bank: MakeBank) -> None:
    bank = make_bank(PROMPTS[0])
    first = bank.samples(SAMPLING, 2)
    (file,) = bank.folder.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    assert bank.missing(SAMPLING, 2) == 2
    assert_close(bank.samples(SAMPLING, 2), first)
