from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from qd.models.codecs.quantizer import DEAD_SHARE, ResidualQuantizer


def features(batch: int = 3, frames: int = 20, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, frames, 12, generator=torch.Generator().manual_seed(seed))


def filled_quantizer() -> ResidualQuantizer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        quantizer = ResidualQuantizer(width=12, latent_width=6, codebooks=3, codebook_size=8, decay=0.9)
    quantizer.train()(features())
    return quantizer


def test_codes_equal_a_naive_nearest_neighbour_loop():
    quantizer = filled_quantizer().eval()
    output = quantizer(features())
    latents = F.layer_norm(quantizer.project_in(features()), (6,)).detach()
    codes = torch.zeros(3, 3, 20, dtype=torch.long)
    commitment = 0.0
    vectors = torch.zeros(3, 20, 6)
    for clip in range(3):
        for frame in range(20):
            residual = latents[clip, frame].clone()
            for book in range(3):
                distances = [float((residual - code).square().sum()) for code in quantizer.embeddings[book]]
                codes[clip, book, frame] = best = min(range(8), key=distances.__getitem__)
                commitment += distances[best] / (3 * 3 * 20 * 6)
                vectors[clip, frame] += quantizer.embeddings[book, best]
                residual -= quantizer.embeddings[book, best]
    assert torch.equal(output.codes, codes)
    assert torch.equal(quantizer.encode(features()), codes)
    assert output.commitment_loss.item() == pytest.approx(commitment, rel=1e-4)
    torch.testing.assert_close(output.vectors, quantizer.project_out(vectors), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(quantizer.decode(codes), quantizer.project_out(vectors), rtol=1e-4, atol=1e-5)


def test_autocast_does_not_change_the_nearest_code():
    quantizer = filled_quantizer().eval()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(quantizer.encode(features()), quantizer(features()).codes)


def test_gradient_passes_straight_through():
    quantizer = filled_quantizer().eval()
    quantizer.project_in = torch.nn.Identity()
    quantizer.project_out = torch.nn.Identity()
    x = features()[..., :6].requires_grad_()
    weights = torch.randn(3, 20, 6, generator=torch.Generator().manual_seed(1))
    (quantizer(x).vectors * weights).sum().backward()
    expected = torch.autograd.grad((F.layer_norm(x, (6,)) * weights).sum(), x)[0]
    torch.testing.assert_close(x.grad, expected)


def test_commitment_pulls_the_encoder_not_the_codes():
    quantizer = filled_quantizer().eval()
    x = features().requires_grad_()
    quantizer(x).commitment_loss.backward()
    assert x.grad.any()
    assert not quantizer.embeddings.requires_grad


def test_moving_averages_follow_a_naive_loop():
    quantizer = filled_quantizer()
    quantizer.counts.fill_(7.5)  # every code is alive
    quantizer.sums.copy_(quantizer.embeddings * 7.5)
    counts, sums, codebooks = (tensor.clone() for tensor in (quantizer.counts, quantizer.sums, quantizer.embeddings))
    x = features(seed=1)
    codes = quantizer(x).codes
    residual = F.layer_norm(quantizer.project_in(x), (6,)).detach()
    for book in range(3):
        for code in range(8):
            assigned = residual[codes[:, book] == code]
            counts[book, code] = 0.9 * counts[book, code] + 0.1 * len(assigned)
            sums[book, code] = 0.9 * sums[book, code] + 0.1 * assigned.sum(0)
        residual = residual - codebooks[book][codes[:, book]]
    torch.testing.assert_close(quantizer.counts, counts)
    torch.testing.assert_close(quantizer.sums, sums, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(quantizer.embeddings, sums / counts[..., None], rtol=1e-4, atol=1e-5)


def test_dead_codes_become_vectors_of_the_batch_and_live_ones_stay_near():
    quantizer = filled_quantizer()
    quantizer.counts.fill_(7.5)
    quantizer.sums.copy_(quantizer.embeddings * 7.5)
    far_away = 100.0
    quantizer.embeddings[0, 2:4] = far_away
    quantizer.sums[0, 2:4] = 0.0
    quantizer.counts[0, 2:4] = 0.5 * DEAD_SHARE * 60 / 8
    x = features(seed=1)
    latents = F.layer_norm(quantizer.project_in(x), (6,)).detach().flatten(0, 1)
    quantizer(x)
    for code in (2, 3):
        distances = (latents - quantizer.embeddings[0, code]).norm(dim=1)
        assert distances.min() < 1e-5
    assert not torch.equal(quantizer.embeddings[0, 2], quantizer.embeddings[0, 3])
    assert quantizer.counts[0, 2] == 60 / 8
    assert quantizer.embeddings.abs().max() < far_away / 2


def test_first_batch_initialises_the_codebooks_once():
    quantizer = ResidualQuantizer(12, 6, codebooks=2, codebook_size=8)
    assert not quantizer.initialised
    quantizer.eval()(features())
    assert not quantizer.initialised
    quantizer.train()(features())
    assert quantizer.initialised
    assert torch.cdist(quantizer.embeddings[0], quantizer.embeddings[0]).add(torch.eye(8)).min() > 1e-3


def test_every_code_is_used():
    quantizer = ResidualQuantizer(12, 6, codebooks=2, codebook_size=8, decay=0.9)
    for step in range(60):
        quantizer.train()(features(seed=step))
    codes = quantizer.eval().encode(features(batch=30, seed=99))
    assert [len(codes[:, book].unique()) for book in range(2)] == [8, 8]
