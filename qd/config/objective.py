"""The objective and its optimiser."""

from __future__ import annotations

from dataclasses import dataclass

from qd.objectives.baselines import BASELINES
from qd.objectives.policy_gradient import ESTIMATORS
from qd.schema.checker import Settings
from qd.schema.setting import setting


@dataclass
class ObjectiveConfig(Settings):
    """The policy gradient of the diversity reward, and the KL to the guided teacher."""

    estimator: str = setting(
        "pairs", "Policy gradient estimator: shared (Appendix A) or pairs (pairs-of-j).", choices=ESTIMATORS
    )
    baseline: str = setting("prompt_moving_average", "Baseline subtracted from the reward.", choices=BASELINES)
    baseline_decay: float = setting(0.9, "Decay of the moving-average baselines.", ge=0, lt=1)
    exact_kl_gradient: bool = setting(False, "Whether to add the score-function term of the KL's gradient.")
    shuffle_advantages: bool = setting(
        False, "Control experiment: each prompt gets the advantages of another prompt's samples."
    )
    beta_ramp_steps: int = setting(1000, "Steps over which β rises linearly from 0 to its value.", unit="steps", ge=0)


@dataclass
class OptimizerConfig(Settings):
    """AdamW."""

    learning_rate: float = setting(1.5e-4, "Learning rate.", gt=0)
    weight_decay: float = setting(0.0, "Weight decay.", ge=0)
    beta1: float = setting(0.9, "Decay of the gradient's mean.", ge=0, lt=1)
    beta2: float = setting(0.999, "Decay of the gradient's mean square.", ge=0, lt=1)
    gradient_clip: float = setting(1.0, "Largest L2 norm of the gradient; 0: no clipping.", ge=0)
    warmup_steps: int = setting(
        0, "Linear warm-up from 0 to the learning rate, which is constant afterwards.", unit="steps", ge=0
    )
