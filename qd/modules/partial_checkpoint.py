"""Checkpoints of modules with frozen parts: trained weights, and fingerprints of the frozen parts."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import lightning.pytorch as pl
from torch import Tensor, nn

from qd.models.checkpoints.fingerprint import fingerprint


class PartialCheckpointModule(pl.LightningModule):
    """Saves and loads trained weights only, and refuses a checkpoint made with other frozen weights.

    Attributes:
        TRAINED: Prefixes of the names of trained weights.
    """

    TRAINED: tuple[str, ...] = ()

    def frozen_parts(self) -> dict[str, nn.Module]:
        """Returns the parts that a checkpoint leaves out, by the name that users know. A resume loads them again."""
        return {}

    def state_dict(self, *args, **kwargs) -> dict[str, Tensor]:
        """Returns trained weights only. Frozen parts, and the base weights of adapters, are loaded by name."""
        state = super().state_dict(*args, **kwargs)
        return {k: v for k, v in state.items() if k.startswith(self.TRAINED) and k not in self._constant}

    def load_state_dict(self, state_dict: dict[str, Tensor], strict: bool = True, assign: bool = False):
        """Loads trained weights. Frozen parts stay as they are; a missing or unknown trained key is an error."""
        own = super().state_dict()
        frozen = {k: v for k, v in own.items() if k in self._constant or not k.startswith(self.TRAINED)}
        return super().load_state_dict({**frozen, **state_dict}, strict=strict, assign=assign)

    @cached_property
    def _constant(self) -> set[str]:
        return {name for name, p in self.named_parameters(remove_duplicate=False) if not p.requires_grad}

    @cached_property
    def _fingerprints(self) -> dict[str, str]:
        return {name: fingerprint(part) for name, part in self.frozen_parts().items()}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["frozen"] = dict(self._fingerprints)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Raises ``ValueError`` with the names of frozen parts that differ from those of the checkpoint."""
        saved = checkpoint.get("frozen", {})  # older versions saved no fingerprints
        if changed := [name for name, weights in saved.items() if self._fingerprints.get(name) != weights]:
            raise ValueError(
                f"the checkpoint was written with a different {' and a different '.join(changed)}: restore the weights "
                "that the run started with, or start a new run"
            )
