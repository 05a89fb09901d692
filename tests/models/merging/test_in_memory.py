from __future__ import annotations

from pathlib import Path

import pytest
import torch

from qd.commands.merge import merge
from qd.models.checkpoints.fingerprint import fingerprint
from qd.models.merging.in_memory import WeightSwapper
from qd.models.merging.model_spec import ModelSpec
from qd.models.musicgen import MusicGen
from tests.conftest import build_tiny_musicgen
from tests.models.conftest import build_library_model, build_tokenizer
from tests.models.merging.conftest import LAYOUTS, halved, sibling

CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=LAYOUTS)
def models(request, tiny_model, tmp_path_factory) -> list[str]:
    """Three siblings of one layout."""
    folder = tmp_path_factory.mktemp("in-memory")
    first = tiny_model
    if request.param == "library":
        first = folder / "0"
        build_library_model().save_pretrained(first)
        build_tokenizer().save_pretrained(first)
    return [str(first), *(str(sibling(first, folder / str(seed), seed)) for seed in (1, 2))]


def loaded(folder: str | Path) -> str:
    return fingerprint(MusicGen.load(folder).lm)


@pytest.mark.parametrize("lam", [0.0, 0.15, 0.5, 1.0])
def test_an_interpolation_equals_the_merged_folder_bit_for_bit(models, tmp_path, lam):
    a, b, _ = models
    weights = WeightSwapper()
    music = weights.load(ModelSpec.between(a, b, 0.7), CPU)  # a model is already allocated
    assert weights.load(ModelSpec.between(a, b, lam), CPU) is music
    merged = merge(a, b, lam=lam, out=tmp_path / "merged")
    assert weights.fingerprint == fingerprint(music.lm) == loaded(merged)
    assert lam % 1 or loaded([a, b][int(lam)]) == weights.fingerprint


def test_a_soup_equals_the_merged_folder(models, tmp_path):
    spec = ModelSpec.parse(" ".join(f"{model}:{weight}" for model, weight in zip(models, (0.2, 0.3, 0.5), strict=True)))
    weights = WeightSwapper()
    weights.load(spec, CPU)
    assert weights.fingerprint == loaded(merge(models=spec.text.split(), out=tmp_path / "soup"))


def test_a_sum_in_half_precision_is_rounded_like_the_merged_folder(models, tmp_path):
    a, b = (str(halved(Path(model), tmp_path / str(i))) for i, model in enumerate(models[:2]))
    weights = WeightSwapper()
    weights.load(ModelSpec.between(a, b, 0.3), CPU)
    assert weights.fingerprint == loaded(merge(a, b, lam=0.3, out=tmp_path / "merged"))


def test_a_single_model_can_be_loaded_again_after_a_sum(models):
    weights = WeightSwapper()
    for spec in (ModelSpec.of(models[1]), ModelSpec.between(*models[:2], 0.4), ModelSpec.of(models[1])):
        weights.load(spec, CPU)
    assert weights.fingerprint == loaded(models[1])


def test_a_model_of_another_shape_replaces_the_allocated_one(models, tmp_path):
    build_tiny_musicgen(width=64).save(tmp_path / "wide")
    weights, wide = WeightSwapper(), ModelSpec.of(str(tmp_path / "wide"))
    narrow = weights.load(ModelSpec.of(models[0]), CPU)
    assert weights.load(wide, CPU) is not narrow and weights.fingerprint == loaded(tmp_path / "wide")
    problems = weights.problems(ModelSpec.between(models[0], str(tmp_path / "wide"), 0.5))
    assert any("hidden_size" in text or "layout" in text for text in problems)


def test_a_broken_model_is_reported_and_the_next_one_loads(models, tmp_path):
    from tests.models.merging.conftest import rewrite

    broken = sibling(Path(models[0]), tmp_path / "broken", 3)
    rewrite(broken, lambda path, tensor: tensor / 0 if "lm_heads.1" in path else tensor)
    weights = WeightSwapper()
    with pytest.raises(ValueError, match="not finite in .*broken"):
        weights.load(ModelSpec.between(models[0], str(broken), 0.5), CPU)
    weights.load(ModelSpec.of(models[0]), CPU)
    assert weights.fingerprint == loaded(models[0])
