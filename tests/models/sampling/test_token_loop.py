"""The C++ loop, compared with the plain loop, and its compilation."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from qd.models.delay import delay
from qd.models.sampling import compiled, sampler, token_loop
from qd.models.sampling.compiled import SOURCE, find_compiler, load_library
from qd.models.sampling.sampler import Sampler, counter_uniforms

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler on this machine")

SHAPES = [
    {"hidden_size": 32, "num_attention_heads": 4},
    {"hidden_size": 20, "num_attention_heads": 2, "ffn_dim": 33, "num_codebooks": 1, "vocab_size": 11},
    {"hidden_size": 72, "num_attention_heads": 3, "num_codebooks": 3, "num_hidden_layers": 3},
    {"hidden_size": 128, "num_attention_heads": 2, "audio_channels": 2, "vocab_size": 40},
]


@pytest.fixture
def with_plain_loop(monkeypatch):
    """Function that runs another function with the plain loop."""

    def run(function):
        with monkeypatch.context() as patch:
            patch.setattr(sampler, "runs_compiled", lambda lm: False)
            return function()

    return run


@needs_compiler
@pytest.mark.parametrize("options", [{}, {"top_k": 3}, {"top_p": 0.8}, {"top_k": 5, "top_p": 0.6}])
@pytest.mark.parametrize("scale", [1.0, 3.0])
@pytest.mark.parametrize("index", range(len(SHAPES)))
@torch.no_grad()
def test_draws_the_same_as_the_plain_loop(index, scale, options, make_lm, make_condition, with_plain_loop):
    """More rows than a block of a product, two rows per prompt, and a temperature per row."""
    lm = make_lm(seed=index, **SHAPES[index])
    condition = make_condition(11, 17, SHAPES[index]["hidden_size"], seed=index).repeat_interleave(2)
    uniforms = counter_uniforms(index, 0, range(22), lm.codebooks, 40)
    temperatures = torch.linspace(3.0, 9.0, 22)  # the logits of random weights are large

    def sample():
        return Sampler(lm).sample(
            condition, 21, temperature=temperatures, uniforms=lambda step: uniforms[..., step],
            guidance_scale=scale, **options,
        )  # fmt: skip

    assert token_loop.runs_compiled(lm)
    ours, expected = sample(), with_plain_loop(sample)
    # A uniform near a boundary of the distribution may select the neighbour, and then the rest of the row differs.
    same = (ours.codes == expected.codes).flatten(1).all(dim=1)
    assert same.float().mean() > 0.85
    atol = 1e-4 * (2 * scale - 1)  # guidance multiplies the rounding errors by γ and γ − 1
    torch.testing.assert_close(ours.log_probs[same], expected.log_probs[same], atol=atol, rtol=0)
    torch.testing.assert_close(ours.entropy[same], expected.entropy[same], atol=atol, rtol=0)
    assert len(ours.codes.unique()) > 3


@needs_compiler
@torch.no_grad()
def test_a_row_is_equal_to_the_bit_for_any_batch_and_number_of_threads(make_lm, make_condition):
    """45 sequences are more than a thread draws at a time."""
    lm, condition = make_lm(seed=2), make_condition(45, 5, 32)
    uniforms = counter_uniforms(3, 7, range(45), 4, 60)

    def sample(rows: slice, threads: int):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            part = type(condition)(condition.states[rows], condition.mask[rows])
            return Sampler(lm).sample(
                part, 50, uniforms=lambda step: uniforms[rows, :, step], guidance_scale=2.0, temperature=5.0
            )
        finally:
            torch.set_num_threads(before)

    reference = sample(slice(0, 45), 1)
    for rows, threads in [(slice(0, 45), 3), (slice(0, 45), 1), (slice(4, 5), 1), (slice(3, 14), 2)]:
        again = sample(rows, threads)
        assert torch.equal(again.codes, reference.codes[rows])
        assert torch.equal(again.log_probs, reference.log_probs[rows])
        assert torch.equal(again.entropy, reference.entropy[rows])


@needs_compiler
@torch.no_grad()
def test_extreme_uniforms_never_draw_a_token_of_probability_zero(make_lm, make_condition):
    """Uniforms at both ends select the first and the last possible token."""
    lm, condition = make_lm(seed=1), make_condition(4, 3, 32)
    for value in (0.0, 1 - 2**-24):
        drawn = Sampler(lm).sample(condition, 9, uniforms=lambda step, v=value: torch.full((4, 4), v), top_k=2)
        delayed, mask = delay(drawn.codes, lm.pad)
        assert (drawn.codes < lm.codebook_size).all()
        assert drawn.log_probs[:, mask].isfinite().all() and (drawn.log_probs[:, mask] > -50).all()


@needs_compiler
@pytest.mark.parametrize("options", [{}, {"top_p": 0.8}, {"top_k": 3}, {"greedy": True}])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@torch.no_grad()
def test_infinite_or_nan_logits_give_valid_tokens(value, options, make_lm, make_condition, with_plain_loop):
    """After a diverged update, tokens are valid and log p is NaN, which stops the training."""
    lm, condition = make_lm(seed=1, vocab_size=40), make_condition(3, 5, 32)
    lm.decoder.lm_heads[1].weight[-1] = value

    def sample():
        uniforms = torch.full((3, lm.codebooks), 0.5)
        return Sampler(lm).sample(condition, 9, uniforms=lambda step: uniforms, **options)

    ours, expected = sample(), with_plain_loop(sample)
    assert ours.codes.min() >= 0 and ours.codes.max() < lm.codebook_size
    assert ours.log_probs[:, 1].isnan().any() and expected.log_probs.isnan().any()
    if not options:
        assert torch.equal(ours.codes[:, 1], expected.codes[:, 1]) and (ours.codes[:, 1] == 0).all()


@needs_compiler
@torch.no_grad()
def test_unsupported_models_use_the_plain_loop(make_lm):
    lm = make_lm()
    assert token_loop.runs_compiled(lm)
    assert not token_loop.runs_compiled(make_lm(activation_function="relu"))
    assert not token_loop.runs_compiled(make_lm().double())


@needs_compiler
@torch.no_grad()
def test_under_autocast_it_draws_the_same(make_lm, make_condition):
    lm, condition = make_lm(seed=3), make_condition(4, 5, 32)
    uniforms = counter_uniforms(0, 1, range(4), lm.codebooks, 20)
    plain = Sampler(lm).sample(condition, 12, uniforms=lambda step: uniforms[..., step])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        sampled = Sampler(lm).sample(condition, 12, uniforms=lambda step: uniforms[..., step])
    assert torch.equal(sampled.codes, plain.codes) and torch.equal(sampled.log_probs, plain.log_probs)


@needs_compiler
@torch.no_grad()
def test_uniforms_of_another_shape_are_refused(make_lm, make_condition):
    with pytest.raises(ValueError, match=r"\(2, 4\) .*got \(2, 3\)"):
        Sampler(make_lm()).sample(make_condition(2, 3, 32), 3, uniforms=lambda step: torch.zeros(2, 3))


@needs_compiler
@torch.no_grad()
def test_too_little_memory_is_an_error(make_lm, make_condition, monkeypatch):
    library = SimpleNamespace(lanes=load_library().lanes, draw_tokens=lambda *_: 0)
    monkeypatch.setattr(token_loop, "load_library", lambda: library)
    with pytest.raises(MemoryError, match="keys and values of 2 rows"):
        Sampler(make_lm()).sample(make_condition(2, 3, 32), 3, greedy=True)


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """Folder of an empty cache, with no library loaded in this process."""
    monkeypatch.delenv("QD_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    load_library.cache_clear()
    yield tmp_path / "qd"
    load_library.cache_clear()


@pytest.mark.parametrize(
    ("compiler", "message"), [("no-such-compiler", "no C++ compiler"), ("false", "could not be compiled")]
)
@torch.no_grad()
def test_without_a_compiler_the_plain_loop_runs_with_one_warning(
    compiler, message, fresh, monkeypatch, make_lm, make_condition, recwarn
):
    monkeypatch.setenv("CXX", compiler)
    for _ in range(2):
        Sampler(make_lm()).sample(make_condition(2, 3, 32), 3, greedy=True)
    warned = [str(warning.message) for warning in recwarn if "plain loop" in str(warning.message)]
    assert len(warned) == 1
    assert message in warned[0]


def loading(**environment: str) -> subprocess.Popen[str]:
    """A process that loads the library and prints its lanes."""
    code = "from qd.models.sampling.compiled import load_library; print(load_library().lanes())"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", code], env=environment, **pipes)


@needs_compiler
def test_concurrent_processes_compile_one_library_once(fresh, capfd):
    ended = [process.communicate() for process in [loading(), loading()]]
    lanes = {printed for printed, _ in ended}
    assert len(lanes) == 1 and int(lanes.pop()) in (4, 8, 16)
    assert sum(errors.count("compiling") for _, errors in ended) == 1
    assert sorted(file.suffix for file in fresh.iterdir()) == [".sha256", ".so"]
    assert load_library() is not None
    assert capfd.readouterr().err == ""  # the library exists: nothing is compiled


@needs_compiler
@pytest.mark.parametrize("damage", ["cut", "empty", "one byte", "no hash"])
def test_a_damaged_library_is_compiled_again(fresh, damage):
    assert load_library() is not None
    library, sums = sorted(fresh.iterdir(), key=lambda file: file.suffix, reverse=True)
    saved = library.read_bytes()
    library.unlink()  # this process has loaded the old file
    spoiled = {"cut": saved[: len(saved) // 2], "empty": b"", "one byte": saved[:5000] + b"x" + saved[5001:]}
    library.write_bytes(spoiled.get(damage, saved))
    if damage == "no hash":
        sums.unlink()
    process = loading()  # a cut library would end the process with a bus error
    printed, errors = process.communicate()
    assert process.returncode == 0 and int(printed) in (4, 8, 16)
    assert f"{library} is damaged and is made again" in errors and library.read_bytes() == saved


@needs_compiler
def test_a_cache_that_cannot_be_written_leaves_nothing_behind(fresh, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "temporary").mkdir()
    process = loading(QD_CACHE=str(tmp_path / "file" / "cache"), TMPDIR=str(tmp_path / "temporary"))
    printed, errors = process.communicate()
    assert process.returncode == 0 and int(printed) in (4, 8, 16) and "compiling" in errors
    assert list((tmp_path / "temporary").iterdir()) == []


@needs_compiler
def test_a_changed_source_is_compiled_again(fresh, monkeypatch, tmp_path):
    other = tmp_path / SOURCE.name
    other.write_text(SOURCE.read_text() + "\n// changed\n")
    first = compiled.library_file(find_compiler(), fresh)
    monkeypatch.setattr(compiled, "SOURCE", other)
    assert compiled.library_file(find_compiler(), fresh) != first
