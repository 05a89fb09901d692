"""Signal and noise of the policy gradient, for each baseline, estimator and N, at equal numbers of sequences.

    python experiments/gradient_signal.py [--rounds 24] [--sequences 32] [--model base]

Each round samples the same prompts anew. All baselines see the same rewards in the same order and weigh the same
gradients of log p(y) on the decoder's heads; so their rows differ in nothing but the baseline. A row's ratio is
|μ|² / E|ḡ − μ|²: the squared length of the expected gradient (of this estimator) over the variance of one step's.
"""

from __future__ import annotations

import argparse
from collections import defaultdict

import torch
from rich.progress import track
from torch import Tensor

from qd.builtin import world
from qd.config import load_config
from qd.config_schema import TrainConfig
from qd.data.prompts import PromptBatch
from qd.models.embedder import load_embedder
from qd.models.musicgen import MusicGen
from qd.modules.distillation import DiversityDistillation
from qd.modules.gradient_diagnostics import head_gradients, signal_and_noise
from qd.objectives.baselines import BASELINES, Baseline, build_baseline
from qd.objectives.distillation import token_log_probs
from qd.objectives.diversity import pairwise_dissimilarity
from qd.objectives.policy_gradient import ESTIMATORS, sample_rewards

WARM_UP = 0.25  # share of the rounds from which the baselines only learn


def measure(model: str, samples: int, sequences: int, rounds: int) -> dict[tuple[str, str], tuple[float, float]]:
    """(estimator, baseline) → (signal, noise), averaged over the rounds after the warm-up."""
    config = load_config(TrainConfig, "train", None, [f"rollout.samples_per_prompt={samples}"])
    music = MusicGen.load(model)
    module = DiversityDistillation(music, load_embedder("builtin"), Baseline(), config)
    baselines = {
        (estimator, name): build_baseline(
            name, decay=config.objective.baseline_decay, feature_width=music.text_encoder.config.hidden_size
        )
        for estimator in ESTIMATORS
        for name in BASELINES
    }
    rate = config.optimizer.learning_rate
    heads = {key: torch.optim.AdamW(b.parameters(), rate) for key, b in baselines.items() if list(b.parameters())}
    found = defaultdict(list)
    prompts = list(world.prompt_set("train", sequences // samples))
    for number in track(range(rounds), description=f"N = {samples}"):
        start = number * len(prompts)
        gradients, dissimilarity, features = _round(
            module, PromptBatch(prompts, list(range(start, start + len(prompts))))
        )
        for key, baseline in baselines.items():
            rewards = sample_rewards(dissimilarity, key[0])
            advantages = rewards - baseline(rewards, prompts, features).detach()
            if number >= WARM_UP * rounds:
                found[key].append(signal_and_noise((advantages[..., None] * gradients).mean(dim=1)))
            baseline.update(rewards, prompts)
            if key in heads:
                heads[key].zero_grad()
                baseline.loss(rewards, features).backward()
                heads[key].step()
    return {
        key: tuple(torch.stack([torch.stack(pair) for pair in values]).mean(0).tolist())
        for key, values in found.items()
    }


def _round(module: DiversityDistillation, batch: PromptBatch) -> tuple[Tensor, Tensor, Tensor]:
    """∇ log p(y) / tokens on the heads ``(P, N, parameters)``, dissimilarities ``(P, N, N)``, prompt features."""
    config = module.config
    rollout = module.rollout(batch)
    with torch.no_grad():
        hidden, _ = module.student_logits(rollout)

    def log_prob(logits: Tensor, rows: slice) -> Tensor:
        each = token_log_probs(logits, rollout.delayed[rows], rollout.mask, config.rollout.temperature)
        return each.sum() / rollout.tokens

    gradients = head_gradients(module.music.lm, hidden, log_prob, 1)
    shape = (len(batch.prompts), config.rollout.samples_per_prompt)
    embeddings = module.embed(module.decode(rollout)).unflatten(0, shape)
    return gradients.unflatten(0, shape), pairwise_dissimilarity(embeddings), rollout.features


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=24, help="steps measured, a quarter of them warm-up (default 24)")
    parser.add_argument("--sequences", type=int, default=32, help="a step (default 32)")
    parser.add_argument("--model", default="base", help="base, a run, a folder (default base)")
    options = parser.parse_args()
    print(f"| N | estimator | baseline | signal / noise, a step of {options.sequences} sequences |\n|---|---|---|---|")
    for samples in (2, 4, 8):
        rows = measure(options.model, samples, options.sequences, options.rounds)
        for (estimator, name), (signal, noise) in rows.items():
            print(f"| {samples} | {estimator} | {name} | {signal / noise:.4f} |", flush=True)


if __name__ == "__main__":
    main()
