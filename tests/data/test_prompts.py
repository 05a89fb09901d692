from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from qd.data.prompt_sources import PromptSource
from qd.data.prompts import BLOCK, PromptBatches, PromptDataModule, PromptStream
from qd.data.world import world


@pytest.fixture(autouse=True)
def grammar(monkeypatch):
    """Replaces the grammar by fast prompts that name their split and index."""
    monkeypatch.setattr(world, "prompt", lambda split, index: f"{split} {index}")


@pytest.fixture
def letters(tmp_path):
    path = tmp_path / "letters.txt"
    path.write_text("a\nb\n\nc\nd\ne\n")
    return PromptSource("text", str(path))


def first(stream: PromptStream, n: int) -> list[str]:
    return [stream[position] for position in range(n)]


def module(sources, batch=16, micro=16, n=4, seed=0) -> PromptDataModule:
    return PromptDataModule(sources, batch_size=batch, micro_batch_size=micro, samples_per_prompt=n, seed=seed)


def steps_of(data: PromptDataModule, ranks: int, start: int, steps: int) -> list[Counter]:
    """Collects the (position, prompt) pairs of each optimiser step from all ranks."""
    collected = [Counter() for _ in range(steps)]
    for rank in range(ranks):
        data.trainer = SimpleNamespace(global_step=start, world_size=ranks, global_rank=rank)
        batches = iter(data.train_dataloader())
        for step in collected:
            for _ in range(data.accumulation(ranks)):
                batch = next(batches)
                step.update(zip(batch.positions, batch.prompts, strict=True))
    return collected


def test_a_prompt_is_a_function_of_seed_and_position(letters):
    sources = [letters, PromptSource(weight=2.0)]
    forwards = first(PromptStream(sources, 3), 200)
    again = PromptStream(sources, 3)
    assert [again[position] for position in reversed(range(200))] == forwards[::-1]
    assert first(PromptStream(sources, 4), 200) != forwards


def test_a_file_is_repeated_in_a_new_order_each_time(letters):
    prompts = first(PromptStream([letters], 0), 50)
    rounds = [tuple(prompts[start : start + 5]) for start in range(0, 50, 5)]
    assert all(sorted(each) == ["a", "b", "c", "d", "e"] for each in rounds)
    assert len(set(rounds)) > 3


def test_a_csv_column_is_a_source(tmp_path):
    path = tmp_path / "prompts.csv"
    path.write_text('id,text\n1,"slow, sad piano"\n2,fast drums\n')
    assert set(first(PromptStream([PromptSource("csv", str(path), "text")], 0), 10)) == {
        "slow, sad piano",
        "fast drums",
    }


def test_the_grammar_repeats_only_with_a_size():
    endless = first(PromptStream([PromptSource()], 0), 3 * BLOCK)
    assert len(set(endless)) == 3 * BLOCK and all(text.startswith("train ") for text in endless)
    few = first(PromptStream([PromptSource(size=8)], 0), 80)
    assert Counter(few) == {f"train {index}": 10 for index in range(8)}


def test_size_selects_the_first_prompts_of_a_file(letters):
    letters.size = 2
    assert set(first(PromptStream([letters], 0), 20)) == {"a", "b"}


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0.1, 10.0), min_size=1, max_size=4), st.integers(0, 5))
def test_every_block_has_the_sources_by_their_weights(weights, block):
    stream = PromptStream([PromptSource(weight=weight, size=number + 1) for number, weight in enumerate(weights)], 0)
    order, _ = stream._draw_block(block)
    counts = [int((order == number).sum()) for number in range(len(weights))]
    assert all(abs(count - BLOCK * weight / sum(weights)) <= 1 for count, weight in zip(counts, weights, strict=True))


def test_each_source_of_a_mixture_continues_in_its_own_order(letters):
    prompts = first(PromptStream([letters, PromptSource(weight=3.0)], 0), 2 * BLOCK)
    own = [text for text in prompts if not text.startswith("train")]
    assert len(own) == BLOCK // 2
    assert all(sorted(own[start : start + 5]) == ["a", "b", "c", "d", "e"] for start in range(0, len(own) - 5, 5))


def test_a_too_small_weight_is_refused():
    with pytest.raises(ValueError, match="1/1024"):
        PromptStream([PromptSource(), PromptSource(weight=1e-6)], 0)


@settings(max_examples=15, deadline=None)
@given(st.sampled_from([(1, 32), (1, 16), (1, 8), (2, 16), (2, 8), (4, 4)]), st.integers(0, 7))
def test_a_step_has_the_same_prompts_for_any_ranks_and_micro_batches(shape, start):
    ranks, micro = shape
    sources = [PromptSource(size=40), PromptSource()]
    expected = steps_of(module(sources, 32, 32), 1, 0, start + 3)[start:]
    assert steps_of(module(sources, 32, micro), ranks, start, 3) == expected


def test_a_batch_that_the_ranks_cannot_share_is_refused():
    with pytest.raises(ValueError, match="3 ranks"):
        module([PromptSource()]).accumulation(3)


def test_loader_workers_take_turns_in_order():
    batches = PromptBatches(PromptStream([PromptSource(size=8)], 0), prompts=2, rank=1, ranks=2, start=5)
    alone, shared = (iter(DataLoader(batches, batch_size=None, num_workers=workers)) for workers in (0, 2))
    assert [next(alone) for _ in range(6)] == [next(shared) for _ in range(6)]


class Recorder(pl.LightningModule):
    """Records the prompts of each optimiser step."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[int, list[str]]] = []

    def training_step(self, batch, batch_idx):
        self.seen.append((self.global_step, list(batch.prompts)))
        return self.weight.sum()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(data, steps, folder, resume=None):
    recorder = Recorder()
    trainer = pl.Trainer(
        max_steps=steps, accumulate_grad_batches=data.accumulation(1), default_root_dir=folder, accelerator="cpu",
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(recorder, datamodule=data, ckpt_path=resume, weights_only=True)
    trainer.save_checkpoint(folder / "last.ckpt")
    return recorder.seen


@pytest.mark.filterwarnings("ignore")
def test_a_resumed_trainer_continues_with_the_prompts_of_its_step(tmp_path):
    sources = [PromptSource()]
    whole = fit(module(sources, 16, 8), 6, tmp_path)
    assert [step for step, _ in whole] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    before = fit(module(sources, 16, 8), 3, tmp_path)
    after = fit(module(sources, 16, 8), 6, tmp_path, resume=tmp_path / "last.ckpt")
    assert before + after == whole
