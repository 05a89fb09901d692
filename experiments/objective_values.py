"""Values of the training objective for finished models: KL to the guided teacher, and diversity.

    python experiments/objective_values.py --model beta0 --model beta15 --model base --model "runs/x/step-001000
        runs/x/step-001500 runs/x/step-002000"

Samples each model on the development prompts, N = 8 samples per prompt, and scores the samples as a training step does.
The policy gradient of Appendix A follows half of the gradient of the diversity D, so training maximises −KL + β/2 · D
(nats per clip). The last column is the β at which a model has the same objective as the first one: the price of its
diversity. Several names, or names with weights, are averaged.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import torch
from rich.console import Console
from rich.progress import track

from qd.config.loading import ConfigError, load_config
from qd.config.train import TrainConfig
from qd.data.prompts import PromptBatch
from qd.data.world import world
from qd.metrics.diversity import diversity
from qd.metrics.formatting import markdown_table
from qd.models.embedders.loading import load_embedder
from qd.models.merging.in_memory import WeightSwapper
from qd.models.merging.model_spec import ModelSpec
from qd.models.merging.weights import Weighted
from qd.modules.distillation import DiversityDistillation
from qd.objectives.baselines import Baseline
from qd.objectives.distillation import score_tokens
from qd.runs.quiet import quieten_libraries

BASE = "base"
PROMPTS_AT_ONCE = 4
CPU = torch.device("cpu")


@torch.no_grad()
def score(module: DiversityDistillation, prompts: list[str], label: str) -> torch.Tensor:
    """Mean KL of the samples in nats per clip, and their diversity, for each prompt, ``(prompts, 2)``."""
    scores = []
    for first in track(range(0, len(prompts), PROMPTS_AT_ONCE), label, console=Console(stderr=True)):
        texts = prompts[first : first + PROMPTS_AT_ONCE]
        rollout = module.rollout(PromptBatch(texts, list(range(first, first + len(texts)))))
        student = module.student_states(rollout), module.music.lm.heads
        teacher = module.teacher_states(rollout), module.teacher.heads
        kl, _ = score_tokens(student, teacher, rollout.delayed, rollout.mask, module.config.rollout.temperature)
        embeddings = module.embed(module.decode(rollout)).unflatten(0, (len(texts), -1))
        summed = kl.sum(dim=(1, 2)).view(len(texts), -1)
        scores.append(torch.stack([summed.mean(dim=1), diversity(embeddings)], dim=1))
    return torch.cat(scores)


def problems(specs: Sequence[ModelSpec], weights: WeightSwapper) -> list[str]:
    """Reasons why models cannot be loaded in place of the base model, which is also the teacher."""
    messages = []
    for spec in specs:
        with_base = ModelSpec((Weighted(BASE, 1.0), *spec.weights))
        messages += spec.problems() or weights.problems(with_base)
    return messages


def row(name: str, values: torch.Tensor, first: torch.Tensor, beta: float) -> list[str]:
    """A table row: means over prompts with standard errors."""
    (kl, diversity), error = values.mean(dim=0), values.std(dim=0) / len(values) ** 0.5
    kl_more, diversity_more = (values - first).mean(dim=0)
    price = f"{2 * kl_more / diversity_more:.0f}" if diversity_more > 0 else ""
    objective = beta / 2 * diversity - kl
    return [name, f"{kl:.1f} ± {error[0]:.1f}", f"{diversity:.3f} ± {error[1]:.3f}", f"{objective:.1f}", price]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", action="append", required=True, help="a model, as for `qd evaluate`; may be repeated"
    )
    parser.add_argument("--prompts", type=int, default=32, help="development prompts, 2 or more (default: %(default)s)")
    parser.add_argument(
        "--beta", type=float, default=15.0, help="β of the column with the objective (default: %(default)g)"
    )
    options = parser.parse_args()
    quieten_libraries()
    try:
        if options.prompts < 2:
            raise ValueError(f"prompts is {options.prompts}; expected 2 or more")
        specs = [ModelSpec.parse(text) for text in options.model]
        weights = WeightSwapper()
        if messages := problems(specs, weights):
            raise ConfigError(messages)
        module = DiversityDistillation(
            weights.take(ModelSpec.of(BASE), CPU),
            load_embedder("builtin"),
            Baseline(),
            load_config(TrainConfig, "train", None, ["rollout.samples_per_prompt=8", "trainer.device=cpu"]),
        )
        prompts = list(world.prompt_set("development", options.prompts))
        values = []
        for spec in specs:
            weights.take(spec, CPU)
            values.append(score(module, prompts, spec.text))
    except ValueError as error:
        print(f"objective_values: {error}", file=sys.stderr)
        return 2
    rows = [row(spec.text, own, values[0], options.beta) for spec, own in zip(specs, values, strict=True)]
    header = [
        "model",
        "KL, nats per clip",
        "diversity, N = 8",
        f"objective at β = {options.beta:g}",
        "equals the first at β",
    ]
    print(markdown_table(header, rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
