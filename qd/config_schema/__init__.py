"""What a training run can be told: every setting with its unit and range, and what makes a value unusable."""

from qd.config_schema.data import DataConfig, PromptSource
from qd.config_schema.evaluation import EvaluationConfig, RewardConfig
from qd.config_schema.objective import ObjectiveConfig, OptimizerConfig
from qd.config_schema.policy import GuidanceConfig, ModelConfig, RolloutConfig
from qd.config_schema.train import TrainConfig
from qd.config_schema.trainer import TrainerConfig

__all__ = [
    "DataConfig",
    "EvaluationConfig",
    "GuidanceConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "OptimizerConfig",
    "PromptSource",
    "RewardConfig",
    "RolloutConfig",
    "TrainConfig",
    "TrainerConfig",
]
