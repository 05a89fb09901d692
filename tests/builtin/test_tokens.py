"""Shards of codes and captions equal single encoding, also after a killed run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from qd.builtin.tokens import TokensStageConfig, all_shards, read_tokens, require_codec, run
from qd.data.world.world import clip
from qd.models.codecs.codec import CodecConfig, FrameCodec

CONFIG = TokensStageConfig(clips=7, validation_clips=2, seconds=0.4, shard_size=3, batch_size=2, workers=0)
RUN_AND_DIE = """
import os, signal, sys
from pathlib import Path
from qd.builtin import tokens

write, written = tokens.save_file, []

def write_then_die(tensors, path):
    write(tensors, path)
    written.append(path)
    if len(written) == 3:  # the third shard is on disk, but not renamed yet
        os.kill(os.getpid(), signal.SIGKILL)

tokens.save_file = write_then_die
folder, codec = map(Path, sys.argv[1:])
tokens.run(tokens.TokensStageConfig(7, 2, 0.4, 3, 2, 0), folder, codec)
"""


def save_codec(folder: Path, seed: int) -> Path:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        codec = FrameCodec(CodecConfig(n_mels=20, width=16, latent_width=8, codebook_size=16))
        torch.nn.init.normal_(codec.encoder[0].weight)
        for codebook in codec.quantizer.buffers():
            if codebook.is_floating_point() and codebook.ndim > 1:
                torch.nn.init.normal_(codebook)
    codec.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def codec_folder(tmp_path_factory):
    return save_codec(tmp_path_factory.mktemp("codec"), seed=0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, codec_folder):
    return run(CONFIG, tmp_path_factory.mktemp("tokens"), codec_folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.parametrize(("split", "clips"), [("base", 7), ("validation", 2)])
def test_shards_equal_single_encoding(whole, codec_folder, split, clips):
    codec = FrameCodec.from_pretrained(codec_folder)
    codes, captions = read_tokens(whole, split)
    originals = [clip(split, index, CONFIG.seconds) for index in range(clips)]
    assert codes.dtype == torch.int16
    assert captions == [original.caption for original in originals]
    one_by_one = torch.cat([codec.encode(torch.as_tensor(original.audio)[None]) for original in originals])
    assert len(one_by_one.unique()) > 4  # the codes are not trivial
    assert torch.equal(codes.long(), one_by_one)


def test_a_killed_run_ends_equal_after_a_resume(whole, codec_folder, tmp_path):
    command = [sys.executable, "-c", RUN_AND_DIE, str(tmp_path), str(codec_folder)]
    assert subprocess.run(command, cwd=Path(__file__).parents[2]).returncode == -9
    partial = contents(tmp_path)
    assert sum(name.endswith(".safetensors") for name in partial) == 2
    with pytest.raises(ValueError, match="3 clips of the split 'base'.*'tokens'"):
        read_tokens(tmp_path, "base")
    run(CONFIG, tmp_path, codec_folder)
    assert contents(tmp_path) == contents(whole)


def test_workers_do_not_change_the_shards(whole, codec_folder, tmp_path):
    run(TokensStageConfig(7, 2, 0.4, 3, 2, workers=2), tmp_path, codec_folder)
    assert contents(tmp_path) == contents(whole)


def test_finished_work_is_not_repeated(whole, codec_folder, monkeypatch):
    monkeypatch.setattr("qd.builtin.tokens.edition", lambda *_: pytest.fail("rendered again"))
    before = {path.name: path.read_bytes() for path in whole.iterdir()}
    assert run(CONFIG, whole, codec_folder) == whole
    assert {path.name: path.read_bytes() for path in whole.iterdir()} == before


def test_shards_cover_every_clip_once():
    covered = [(shard.split, i) for shard in all_shards(CONFIG) for i in range(shard.start, shard.stop)]
    assert sorted(covered) == [("base", i) for i in range(7)] + [("validation", i) for i in range(2)]


def test_another_codec_or_setting_is_refused(whole, codec_folder, tmp_path):
    with pytest.raises(ValueError, match="another codec: remove the folder"):
        run(CONFIG, whole, save_codec(tmp_path, seed=1))
    with pytest.raises(ValueError, match="another seconds"):
        run(TokensStageConfig(7, 2, 0.8, 3, 2, 0), whole, codec_folder)


def test_tokens_of_another_codec_are_refused(whole, codec_folder, tmp_path):
    require_codec(whole, codec_folder)
    require_codec(tmp_path, codec_folder)  # an empty folder passes; read_tokens refuses it
    with pytest.raises(ValueError, match="codec .*stage 'tokens'"):
        require_codec(whole, save_codec(tmp_path / "other", seed=1))


def test_bad_input_is_refused(codec_folder, tmp_path):
    with pytest.raises(ValueError, match="tokens.shard_size is 0; expected .*1 or more"):
        run(TokensStageConfig(shard_size=0), tmp_path, codec_folder)
    with pytest.raises(ValueError, match="0 clips of the split 'base'"):
        read_tokens(tmp_path, "base")
