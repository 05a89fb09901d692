"""One of two ranks with a sharded language model, as a process: ``sharded_ranks.py RANK FOLDER``.

``FOLDER/model`` is a checkpoint. Writes ``FOLDER/rank<RANK>.pt``, what this rank saw, and with the other rank
``FOLDER/saved``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from qd.models.checkpoints.fingerprint import fingerprint
from qd.models.condition import Condition
from qd.models.delay import delay
from qd.models.musicgen import MusicGen
from qd.models.sampling.sampler import Sampler
from qd.runs.collective import gradient_norm
from qd.runs.sharding import shared_like, whole_state

ROWS, FRAMES = 4, 6


def scores(music: MusicGen, rows: slice) -> Tensor:
    """Returns the logits of some rows of a batch of random codes."""
    lm, generator = music.lm, torch.Generator().manual_seed(0)
    codes = torch.randint(lm.codebook_size, (ROWS, lm.codebooks, FRAMES), generator=generator)
    delayed, _ = delay(codes[rows], lm.pad, lm.channels)
    condition = music.condition(["a calm piano piece", "fast drums"] * (ROWS // 2))
    return lm.logits(delayed, Condition(condition.states[rows], condition.mask[rows]))


def look(music: MusicGen, rows: slice) -> dict[str, Any]:
    """Returns logits, gradients of the mean square of the rows' logits, and greedy codes."""
    logits = scores(music, rows)
    logits.square().mean().backward()
    gradients = {name: weight.grad for name, weight in music.lm.named_parameters()}
    drawn = Sampler(music.lm).sample(music.condition(["fast drums"]), FRAMES, greedy=True)
    return {
        "logits": logits.detach(),
        "gradients": whole_state(gradients),
        "norm": gradient_norm(music.lm.parameters()),
        "codes": drawn.codes,
        "fingerprint": fingerprint(music.lm),
    }


def main(rank: int, folder: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=2)
    music = MusicGen.load(folder / "model")
    full = music.lm.state_dict()
    music.lm.shard(init_device_mesh("cpu", (2,)))
    shares = music.lm.state_dict()
    seen = look(music, slice(rank * ROWS // 2, (rank + 1) * ROWS // 2))
    seen["held"] = sum(share.to_local().numel() for share in shares.values() if isinstance(share, DTensor))
    seen["recut"] = all(torch.equal(shared_like(full[k], v).to_local(), v.to_local()) for k, v in shares.items())
    music.save(folder / "saved", write=rank == 0)
    torch.save(seen, folder / f"rank{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
