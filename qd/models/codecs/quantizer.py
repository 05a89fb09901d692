"""Residual vector quantiser whose codebooks are moving averages."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DEAD_SHARE = 0.05
"""A code is dead, and gets replaced, if its use is below this fraction of the mean use (vectors / codebook size)."""


@dataclass
class Quantized:
    """``vectors (batch, frames, width)``, ``codes (batch, codebooks, frames)`` and the scalar commitment loss."""

    vectors: Tensor
    codes: Tensor
    commitment_loss: Tensor


class ResidualQuantizer(nn.Module):
    """Quantises in a low-dimensional space: each codebook quantises the residual of the previous ones.

    With ``r_0`` the projected and layer-normalised input: ``k_q = argmin_k ‖r_q − e_qk‖²``,
    ``r_{q+1} = r_q − e_{q,k_q}``; the output is the projection of ``Σ_q e_{q,k_q}``. The gradient is passed straight
    through; the commitment loss ``mean ‖r_q − sg[e_{q,k_q}]‖²`` keeps the encoder near the codes.

    In training mode, the codes are exponential moving averages of the vectors assigned to them
    (``e = sums / counts``; van den Oord et al. 2017, appendix A.1). They start as vectors of the first batch, and dead
    codes are replaced by vectors of the current batch. These vectors are evenly spaced in the batch, whose order is
    already random; without a generator, a resumed training gives the same result.

    Args:
        width: Width of the input and the output.
        latent_width: Width of the space in which codes are looked up.
        codebooks: Number of codebooks.
        codebook_size: Codes per codebook.
        decay: Decay of the moving averages per step.
    """

    def __init__(self, width: int, latent_width: int, codebooks: int, codebook_size: int, decay: float = 0.99) -> None:
        super().__init__()
        self.codebook_size, self.decay = codebook_size, decay
        self.project_in = nn.Linear(width, latent_width)
        self.project_out = nn.Linear(latent_width, width)
        self.register_buffer("embeddings", torch.zeros(codebooks, codebook_size, latent_width))
        self.register_buffer("sums", torch.zeros(codebooks, codebook_size, latent_width))
        self.register_buffer("counts", torch.zeros(codebooks, codebook_size))
        self.register_buffer("initialised", torch.tensor(False))

    def forward(self, features: Tensor) -> Quantized:
        """Quantises features ``(batch, frames, width)``; updates the codebooks in training mode."""
        latents = self._latents(features)
        with torch.autocast(features.device.type, enabled=False):
            if self.training and not self.initialised:
                self._initialise(latents.detach().flatten(0, 1))
            residual, commitment, codes = latents, latents.new_zeros(()), []
            for book in range(len(self.embeddings)):
                indices = self._nearest(book, residual)
                chosen = self.embeddings[book][indices]
                commitment = commitment + F.mse_loss(residual, chosen)
                if self.training:
                    self._update(book, residual.detach().flatten(0, 1), indices.flatten())
                residual = residual - chosen
                codes.append(indices)
            quantized = latents - residual
            straight_through = latents + (quantized - latents).detach()
        codes = torch.stack(codes, dim=1)
        return Quantized(self.project_out(straight_through), codes, commitment / len(self.embeddings))

    def encode(self, features: Tensor) -> Tensor:
        """Maps features ``(batch, frames, width)`` to codes ``(batch, codebooks, frames)`` without any update."""
        residual, codes = self._latents(features), []
        # In half precision, the distances to neighbouring codes would round to the same number.
        with torch.autocast(features.device.type, enabled=False):
            for book in range(len(self.embeddings)):
                codes.append(self._nearest(book, residual))
                residual = residual - self.embeddings[book][codes[-1]]
        return torch.stack(codes, dim=1)

    def decode(self, codes: Tensor) -> Tensor:
        """Maps codes ``(batch, codebooks, frames)`` to vectors ``(batch, frames, width)``."""
        chosen = [embedding[index] for embedding, index in zip(self.embeddings, codes.unbind(1), strict=True)]
        return self.project_out(torch.stack(chosen).sum(0))

    def _latents(self, features: Tensor) -> Tensor:
        latents = self.project_in(features).float()
        # A fixed scale keeps the weight of the commitment loss meaningful, and the latents cannot grow.
        return F.layer_norm(latents, latents.shape[-1:])

    def _nearest(self, book: int, vectors: Tensor) -> Tensor:
        """Returns the index of the nearest code; ‖r‖² is equal for all codes and is omitted from the distance."""
        codebook = self.embeddings[book]
        return (codebook.square().sum(-1) - 2 * vectors @ codebook.T).argmin(-1)

    @torch.no_grad()
    def _initialise(self, vectors: Tensor) -> None:
        """Initialises the codes with vectors of the batch, halved from book to book because residuals shrink."""
        for book in range(len(self.embeddings)):
            scale = 0.5**book
            every = torch.ones(self.codebook_size, dtype=torch.bool, device=vectors.device)
            self._replace(book, vectors * scale, every)
        self.initialised.fill_(True)

    @torch.no_grad()
    def _update(self, book: int, vectors: Tensor, indices: Tensor) -> None:
        """Updates the averages with this batch's vectors ``(n, latent_width)`` and replaces dead codes."""
        counts = torch.bincount(indices, minlength=self.codebook_size).to(vectors.dtype)
        sums = torch.zeros_like(self.sums[book]).index_add_(0, indices, vectors)
        self.counts[book].lerp_(counts, 1 - self.decay)
        self.sums[book].lerp_(sums, 1 - self.decay)
        dead = self.counts[book] < DEAD_SHARE * len(vectors) / self.codebook_size
        if dead.any():
            self._replace(book, vectors, dead)
        self.embeddings[book] = self.sums[book] / self.counts[book, :, None]

    def _replace(self, book: int, vectors: Tensor, mask: Tensor) -> None:
        """Replaces the codes in ``mask (codebook_size,)`` by vectors of the batch."""
        rows = torch.linspace(0, len(vectors) - 1, int(mask.sum()), device=vectors.device).long()
        mean_count = len(vectors) / self.codebook_size
        self.counts[book, mask] = mean_count
        self.sums[book, mask] = vectors[rows] * mean_count
        self.embeddings[book, mask] = vectors[rows]
