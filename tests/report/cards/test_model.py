"""The card of a trained model: its YAML header, its text, and its licence."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard

from qd.config.policy import ModelConfig
from qd.config.train import TrainConfig
from qd.evaluation.columns import METRICS
from qd.evaluation.points import Point
from qd.metrics.bootstrap import Interval
from qd.models.checkpoints.resolver import ASSETS
from qd.report.cards.model import Origin, front_matter, origin, write_card


def point(step: int, value: float, **changes) -> Point:
    metrics = {name: Interval(value, value - 0.5, value + 0.5) for name in METRICS}
    made = Point("0", "x", "m", step, 15.0, 1.0, None, 0.99, None, 0, "quick", "loud@1", 32, 4, metrics, 1.0)
    return replace(made, **changes)


def card_of(folder: Path, points=(), step: int = 500, **changes) -> ModelCard:
    folder.mkdir(exist_ok=True)
    write_card(folder, {"run": "x", "step": step, "config": asdict(TrainConfig(**changes))}, points)
    return ModelCard.load(folder / "README.md")


def test_the_header_has_the_fields_of_the_hub(tmp_path):
    card = card_of(tmp_path, model=ModelConfig("facebook/musicgen-small"))
    front = yaml.safe_load((tmp_path / "README.md").read_text(encoding="utf-8").split("---\n")[1])
    assert front == card.data.to_dict() and front["tags"][:2] == ["music", "text-to-music"]
    assert (card.data.license, card.data.base_model) == ("cc-by-nc-4.0", "facebook/musicgen-small")
    assert (card.data.pipeline_tag, card.data.library_name) == ("text-to-audio", "transformers")
    assert "`facebook/musicgen-small`, and inherit its licence: cc-by-nc-4.0" in card.text


def test_the_text_says_how_the_model_was_trained(tmp_path):
    text = card_of(tmp_path).text
    assert "# x, step 500" in text
    assert "γ = 3 (negative prompt “Bad audio quality.”)" in text and "β = 15" in text
    (config,) = [part.split("```")[0] for part in text.split("```yaml\n")[1:]]
    assert yaml.safe_load(config) == asdict(TrainConfig())
    plain = card_of(tmp_path, beta=0.0, guidance=replace(TrainConfig().guidance, negative_prompt=None)).text
    assert "(unconditional)" in plain and "reward (β" not in plain


def test_the_usage_depends_on_the_layout_of_the_folder(tmp_path):
    assert 'pipeline("text-to-audio", model=".")' in card_of(tmp_path).text
    (tmp_path / "decoder").mkdir()
    assert 'MusicgenForCausalLM.from_pretrained("decoder")' in card_of(tmp_path).text


def test_the_table_has_this_step_and_the_first_step(tmp_path):
    points = [point(0, 1.0), point(250, 2.0), point(500, 3.0), point(500, 9.0, guidance_scale=3.0), point(1000, 4.0)]
    rows = [line for line in card_of(tmp_path, points).text.splitlines() if line.startswith("| step")]
    assert [row.split(" | ")[:2] for row in rows] == [
        ["| step 0", "1.000 [0.500, 1.500]"],
        ["| step 500", "3.000 [2.500, 3.500]"],
    ]
    other = [point(0, 1.0, protocol="paper"), point(500, 3.0)]
    assert "| step 0 |" not in card_of(tmp_path, other).text
    assert "Not measured at this step." in card_of(tmp_path, [point(0, 1.0)]).text


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("base", Origin("apache-2.0", None)),
        ("facebook/musicgen-stereo-large", Origin("cc-by-nc-4.0", "facebook/musicgen-stereo-large")),
        ("someone/their-musicgen", Origin("other", "someone/their-musicgen")),
        ("/c/models--facebook--musicgen-small/snapshots/4c8334", Origin("cc-by-nc-4.0", "facebook/musicgen-small")),
        ("/models/musicgen-small", Origin("other", None)),
    ],
)
def test_weights_inherit_the_licence_of_their_base(base, expected):
    assert origin(base) == expected


def test_a_merged_model_has_the_common_licence_of_its_sources(tmp_path):
    small, large = (origin(f"facebook/musicgen-{size}") for size in ("small", "large"))
    for sources, licence, base in (
        ([small, small], "cc-by-nc-4.0", "facebook/musicgen-small"),
        ([small, large], "cc-by-nc-4.0", ["facebook/musicgen-large", "facebook/musicgen-small"]),
        ([small, origin("base")], "other", "facebook/musicgen-small"),
        ([origin("base"), origin(str(ASSETS / "base"))], "apache-2.0", None),
    ):
        data = ModelCard(front_matter(sources)).data
        assert (data.license, data.base_model) == (licence, base)


def test_the_licence_of_a_folder_is_read_from_its_card(tmp_path):
    first = tmp_path / "first"
    card_of(first, model=ModelConfig("facebook/musicgen-small"))
    assert origin(str(first)) == Origin("cc-by-nc-4.0", "facebook/musicgen-small")
    second = card_of(tmp_path / "second", model=ModelConfig(str(first)))
    assert second.data.base_model == "facebook/musicgen-small"
    (first / "README.md").write_text("no front matter")
    assert origin(str(first)) == Origin("other", None)
    unknown = card_of(tmp_path / "third", model=ModelConfig(str(first)))
    assert unknown.data.license == "other" and "unknown" in unknown.text
