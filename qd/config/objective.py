"""What is optimised, and by what."""

from __future__ import annotations

from dataclasses import dataclass

from qd.config.checks import bounded, fraction, one_of, positive
from qd.objectives.baselines import BASELINES
from qd.objectives.policy_gradient import ESTIMATORS


@dataclass
class ObjectiveConfig:
    estimator: str = "pairs"  # of the policy gradient: "shared" (Appendix A) or "pairs" (pairs-of-j)
    baseline: str = "prompt_moving_average"  # subtracted from the reward; a name of qd.objectives.baselines.BASELINES
    baseline_decay: float = 0.9  # of the moving averages, in [0, 1)
    exact_kl_gradient: bool = False  # add the score-function term of the KL's gradient
    shuffle_advantages: bool = False  # a control: each prompt gets the advantages of another one
    beta_ramp_steps: int = 1000  # β rises from 0 to its value over as many steps, ≥ 0

    def problems(self) -> list[str]:
        return [
            *one_of("objective.estimator", self.estimator, ESTIMATORS),
            *one_of("objective.baseline", self.baseline, BASELINES),
            *fraction("objective.baseline_decay", self.baseline_decay),
            *bounded("objective.beta_ramp_steps", self.beta_ramp_steps, 0),
        ]


@dataclass
class OptimizerConfig:
    """AdamW."""

    learning_rate: float = 1.5e-4  # > 0
    weight_decay: float = 0.0  # ≥ 0
    beta1: float = 0.9  # in [0, 1)
    beta2: float = 0.999  # in [0, 1)
    gradient_clip: float = 1.0  # largest L2 norm of the gradient; 0 = no clipping
    warmup_steps: int = 0  # linear from 0 to the learning rate, then constant; ≥ 0

    def problems(self) -> list[str]:
        return [
            *positive("optimizer.learning_rate", self.learning_rate),
            *bounded("optimizer.weight_decay", self.weight_decay, 0),
            *fraction("optimizer.beta1", self.beta1),
            *fraction("optimizer.beta2", self.beta2),
            *bounded("optimizer.gradient_clip", self.gradient_clip, 0),
            *bounded("optimizer.warmup_steps", self.warmup_steps, 0),
        ]
