"""What a checkpoint of a module with frozen parts holds: the trained part, and fingerprints of the frozen ones."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import lightning.pytorch as pl
from torch import Tensor, nn

from qd.models.checkpoints.fingerprint import fingerprint


class PartialCheckpointModule(pl.LightningModule):
    """Saves and loads only what training changes; a checkpoint is refused where a frozen part is another one.

    Attributes:
        TRAINED: prefixes of the names of what is trained.
    """

    TRAINED: tuple[str, ...] = ()

    def frozen_parts(self) -> dict[str, nn.Module]:
        """What a checkpoint leaves out and a resume loads by name, under the names that a user knows."""
        return {}

    def state_dict(self, *args, **kwargs) -> dict[str, Tensor]:
        """Only what training changes: the frozen parts, and what adapters adapt, are loaded by name."""
        state = super().state_dict(*args, **kwargs)
        return {k: v for k, v in state.items() if k.startswith(self.TRAINED) and k not in self._constant}

    def load_state_dict(self, state_dict: dict[str, Tensor], strict: bool = True, assign: bool = False):
        """The inverse: the frozen parts stay as they are; a missing or unknown trained key is an error."""
        own = super().state_dict()
        frozen = {k: v for k, v in own.items() if k in self._constant or not k.startswith(self.TRAINED)}
        return super().load_state_dict({**frozen, **state_dict}, strict=strict, assign=assign)

    @cached_property
    def _constant(self) -> set[str]:
        return {name for name, p in self.named_parameters(remove_duplicate=False) if not p.requires_grad}

    @cached_property
    def _frozen(self) -> dict[str, str]:
        return {name: fingerprint(part) for name, part in self.frozen_parts().items()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["frozen"] = dict(self._frozen)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raises ``ValueError`` naming the frozen parts that are others than when the checkpoint was written."""
        saved = checkpoint.get("frozen", {})  # a checkpoint of an older version holds none
        if changed := [name for name, weights in saved.items() if self._frozen.get(name) != weights]:
            raise ValueError(
                f"the checkpoint was written with another {' and another '.join(changed)} than is loaded now; put back "
                "the weights that the run began with, or start a new run"
            )
