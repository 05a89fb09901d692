"""A small bank of drum loops without music, from the built-in world."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from qd.audio.resample import resample
from qd.data.world import composer, drumming, synthesiser
from qd.data.world.timbres import SAMPLE_RATE
from qd.data.world2 import composer as composer2
from qd.data.world2 import drumming as drumming2
from qd.data.world2 import synthesiser as synthesiser2

LOOPS = 48
SECONDS = 12.0
SEED = 20_817
PLAYERS = {1: (composer, drumming, synthesiser), 2: (composer2, drumming2, synthesiser2)}
"""What composes, drums and renders, by edition of the world."""


@lru_cache(maxsize=2)
def drum_loops(sample_rate: int, device: torch.device, world: int = 1) -> Tensor:
    """Returns loops of many genres and tempi, ``(LOOPS, samples)`` float32; always the same, cached, do not modify.

    Args:
        sample_rate: Sample rate of the loops in Hz.
        device: Device of the loops.
        world: Edition of the built-in world, whose drums they are.
    """
    rng = np.random.default_rng(SEED)
    loops = np.stack([_loop(rng, world) for _ in range(LOOPS)])
    return resample(torch.from_numpy(loops), SAMPLE_RATE, sample_rate).to(device)


def _loop(rng: np.random.Generator, world: int) -> np.ndarray:
    compose, drum, render = PLAYERS[world]
    piece = drum.with_drums(compose.compose(rng, carelessness=0.0), rng)
    return render.render(replace(piece, notes=()), 0.0, SECONDS)


def draw_drums(loops: Tensor, clips: int, samples: int, generator: torch.Generator) -> Tensor:
    """Draws excerpts ``(clips, samples)`` of random loops at random positions; a loop repeats if it is too short.

    Args:
        loops: Loops from :func:`drum_loops`, on the generator's device.
        clips: Number of excerpts.
        samples: Length of an excerpt.
        generator: The only source of randomness.
    """
    count, length = loops.shape
    device = loops.device
    which = torch.randint(count, (clips, 1), generator=generator, device=device)
    start = torch.randint(length, (clips, 1), generator=generator, device=device)
    return loops[which, (start + torch.arange(samples, device=device)) % length]
