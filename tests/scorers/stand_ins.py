"""Stand-ins for the packages ``muq`` and ``audiobox_aesthetics``, which need torchaudio and real weights.

They have the documented interface of the packages, load and save with the same mixin of ``huggingface_hub``, and show
the behaviour that an adapter must handle: MuQ-MuLan extends a short clip by its own beginning, and averages a text over
the padding of its batch; Audiobox masks padding and returns standardised ratings.
"""

from __future__ import annotations

from types import ModuleType, SimpleNamespace

import torch
import torch.nn.functional as F
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

WIDTH, LATENT = 6, 4
MULAN_CONFIG = {"mulan": {"sr": 24_000, "clip_secs": 10, "dim_latent": LATENT}}
AXES = ("CE", "CU", "PC", "PQ")
TARGETS = {axis: {"mean": 5.0 + i, "std": 1.0 + 0.5 * i} for i, axis in enumerate(AXES)}


class MuQ(nn.Module, PyTorchModelHubMixin):
    """Maps audio ``(batch, samples)`` at 24 kHz to 25 states a second."""

    def __init__(self, config: dict) -> None:
        super().__init__()
        self.config = SimpleNamespace(**config)
        self.linear = nn.Linear(960, config["encoder_dim"])

    def forward(self, x: Tensor, attention_mask: Tensor | None = None, output_hidden_states: bool = True):
        assert x.shape[1] >= 2048, "the transform mirrors half of its 2,048 samples"
        states = self.linear(x[:, : x.shape[1] // 960 * 960].unflatten(1, (-1, 960)))
        return SimpleNamespace(last_hidden_state=states, hidden_states=(states,) if output_hidden_states else None)


class MuQMuLan(nn.Module, PyTorchModelHubMixin):
    def __init__(self, config: dict, hf_hub_cache_dir: str | None = None) -> None:
        super().__init__()
        self.config = SimpleNamespace(mulan=SimpleNamespace(**config["mulan"]))
        self.sr, self.clip_secs = config["mulan"]["sr"], config["mulan"]["clip_secs"]
        self.audio, self.letters = nn.Linear(2, LATENT), nn.Embedding(128, LATENT)

    @classmethod
    def from_pretrained(cls, *args, cache_dir: str | None = None, **kwargs):
        return super().from_pretrained(*args, cache_dir=cache_dir, hf_hub_cache_dir=cache_dir, **kwargs)

    def forward(self, wavs: Tensor | None = None, texts: list[str] | None = None, *, parallel_processing: bool = False):
        assert (wavs is None) != (texts is None)
        if texts is None:
            return torch.stack([F.normalize(self._clip(wav), dim=-1) for wav in wavs])
        longest = max(len(text) for text in texts)
        ids = torch.tensor([[ord(letter) % 128 for letter in text.ljust(longest, "\0")] for text in texts])
        return F.normalize(self.letters(ids).mean(dim=1), dim=-1)

    def _clip(self, wav: Tensor) -> Tensor:
        filled = torch.cat([wav, wav[: self.sr * self.clip_secs - len(wav)]])
        return self.audio(torch.stack([filled.mean(), filled.abs().mean() * len(filled) / len(wav)]))


class AesMultiOutput(nn.Module, PyTorchModelHubMixin):
    """Returns standardised ratings of each window by axis, from the unmasked part of the window."""

    def __init__(self, target_transform: dict | None = None) -> None:
        super().__init__()
        self.target_transform = target_transform
        self.proj_layer = nn.ModuleDict({axis: nn.Linear(3, 1) for axis in AXES})

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        wav, mask = batch["wav"], batch["mask"]
        assert wav.shape[1:] == mask.shape[1:] == (1, 160_000) and mask.dtype == torch.bool
        wav, mask = wav.squeeze(1), mask.squeeze(1)
        length = mask.sum(dim=1)
        moments = torch.stack([(wav * mask).sum(1), (wav.square() * mask).sum(1), (wav.abs() * mask).sum(1)], 1)
        return {axis: layer(moments / length[:, None]).squeeze(1) for axis, layer in self.proj_layer.items()}


def packages() -> dict[str, ModuleType]:
    """Returns the entries of ``sys.modules`` for both packages."""
    modules = {name: ModuleType(name) for name in ("muq", "audiobox_aesthetics", "audiobox_aesthetics.model")}
    aes = modules["audiobox_aesthetics.model.aes"] = ModuleType("audiobox_aesthetics.model.aes")
    modules["muq"].MuQ, modules["muq"].MuQMuLan, aes.AesMultiOutput = MuQ, MuQMuLan, AesMultiOutput
    return modules
