"""Signal and noise of the policy gradient for each baseline, estimator and N, with equal numbers of sequences.

    python experiments/gradient_signal.py [--rounds 96] [--sequences 32] [--model base]

Each round samples the same prompts again. All baselines get the same rewards in the same order and weight the same
gradients of log p(y) on the decoder's heads, so the rows of one N differ only in estimator and baseline. With ḡ_r the
gradient of round r and μ its expectation, the ratio of a row is the signal-to-noise ratio |μ|² / E|ḡ_r − μ|². |μ|² is
estimated by the mean of ḡ_r·ḡ_s over different rounds, whose noise is independent. The error of the ratio is a
jackknife estimate over rounds.
"""

from __future__ import annotations

import argparse
from collections import defaultdict

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from qd.config.loading import load_config
from qd.config.train import TrainConfig
from qd.data.prompts import PromptBatch
from qd.data.world import world
from qd.models.embedders.loading import load_embedder
from qd.models.musicgen import MusicGen
from qd.modules.distillation import DiversityDistillation
from qd.modules.gradient_diagnostics import head_gradients
from qd.objectives.baselines import BASELINES, Baseline, build_baseline
from qd.objectives.distillation import token_log_probs
from qd.objectives.diversity import pairwise_dissimilarity
from qd.objectives.policy_gradient import ESTIMATORS, sample_rewards
from qd.runs.quiet import quieten_libraries

WARM_UP = 0.25  # share of the rounds that only train the baselines

Row = tuple[str, str]
"""Estimator and baseline."""


def collect(model: str, samples: int, sequences: int, rounds: int) -> dict[Row, Tensor]:
    """Gradients of the rounds after the warm-up, ``(rounds, parameters)``, for each estimator and baseline."""
    config = load_config(TrainConfig, "train", None, [f"rollout.samples_per_prompt={samples}"])
    music = MusicGen.load(model)
    module = DiversityDistillation(music, load_embedder("builtin"), Baseline(), config)
    width, rate = music.text_encoder.config.hidden_size, config.optimizer.learning_rate
    baselines = {
        (estimator, name): build_baseline(name, decay=config.objective.baseline_decay, feature_width=width)
        for estimator in ESTIMATORS
        for name in BASELINES
    }
    heads = {key: torch.optim.AdamW(b.parameters(), rate) for key, b in baselines.items() if list(b.parameters())}
    collected = defaultdict(list)
    prompts = list(world.prompt_set("train", sequences // samples))
    for number in track(range(rounds), f"N = {samples}", console=Console(stderr=True)):
        positions = range(number * len(prompts), (number + 1) * len(prompts))
        gradients, dissimilarity, features = _round(module, PromptBatch(prompts, list(positions)))
        for key, baseline in baselines.items():
            rewards = sample_rewards(dissimilarity, key[0])
            advantages = rewards - baseline(rewards, prompts, features).detach()
            if number >= WARM_UP * rounds:
                collected[key].append(advantages.flatten() @ gradients / advantages.numel())
            baseline.update(rewards, prompts)
            if key in heads:
                heads[key].zero_grad()
                baseline.loss(rewards, features).backward()
                heads[key].step()
    return {key: torch.stack(values) for key, values in collected.items()}


def _round(module: DiversityDistillation, batch: PromptBatch) -> tuple[Tensor, Tensor, Tensor]:
    """∇ log p(y) / tokens on the heads ``(P·N, parameters)``, dissimilarities ``(P, N, N)``, and prompt features."""
    config = module.config
    rollout = module.rollout(batch)
    with torch.no_grad():
        hidden = module.student_states(rollout)

    def log_prob(logits: Tensor, rows: slice) -> Tensor:
        each = token_log_probs(logits, rollout.delayed[rows], rollout.mask, config.rollout.temperature)
        return each.sum() / rollout.tokens

    gradients = head_gradients(module.music.lm, hidden, log_prob, 1)
    embeddings = module.embed(module.decode(rollout)).unflatten(0, (len(batch.prompts), -1))
    return gradients, pairwise_dissimilarity(embeddings), rollout.features


def off_diagonal_mean(products: Tensor) -> Tensor:
    """Estimate of |μ|² from the inner products of all rounds' gradients, ``(rounds, rounds)``."""
    rounds = len(products)
    return (products.sum() - products.diagonal().sum()) / (rounds * (rounds - 1))


def ratio(products: Tensor) -> Tensor:
    """Signal-to-noise ratio |μ|² / E|ḡ − μ|²."""
    signal = off_diagonal_mean(products)
    return signal / (products.diagonal().mean() - signal)


def jackknife_error(products: Tensor) -> Tensor:
    """Standard error of :func:`ratio`, from leaving out one round at a time."""
    rounds = len(products)
    remaining = [torch.arange(rounds) != left_out for left_out in range(rounds)]
    ratios = torch.stack([ratio(products[rows][:, rows]) for rows in remaining])
    return ((rounds - 1) * ratios.var(correction=0)).sqrt()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=96, help="rounds, a quarter of them warm-up (default: 96)")
    parser.add_argument("--sequences", type=int, default=32, help="sequences per round (default: 32)")
    parser.add_argument("--model", default="base", help="base, a run or a folder (default: base)")
    options = parser.parse_args()
    quieten_libraries()
    print("| N | estimator | baseline | noise, 1e-6 | signal / noise |")
    print("|---|---|---|---|---|")
    for samples in (2, 4, 8):
        products = {
            row: (gradients @ gradients.T).double()
            for row, gradients in collect(options.model, samples, options.sequences, options.rounds).items()
        }
        for (estimator, name), product in products.items():
            noise = product.diagonal().mean() - off_diagonal_mean(product)
            snr = f"{ratio(product):.4f} ± {jackknife_error(product):.4f}"
            print(f"| {samples} | {estimator} | {name} | {1e6 * noise:.2f} | {snr} |", flush=True)


if __name__ == "__main__":
    main()
