"""The state that the sample metrics share: one number for each prompt."""

from __future__ import annotations

from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat


class PerPrompt(Metric):
    """Keeps one value for each prompt; `compute` is their mean, over all ranks.

    The values themselves are what an interval is made of: see `qd.metrics.bootstrap`.
    """

    full_state_update = False
    values: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("values", default=[], dist_reduce_fx="cat")

    def compute(self) -> Tensor:
        """The mean over prompts, a scalar."""
        return dim_zero_cat(self.values).mean()

    def per_prompt(self) -> Tensor:
        """The value of each prompt, `(prompts,)`, over all ranks in the order of ranks."""
        with self.sync_context():
            return dim_zero_cat(self.values)
