"""Layers of a config: default file, overlay and overrides."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import yaml
from omegaconf import OmegaConf

from qd.config.loading import ConfigError, load_config, to_yaml
from tests.config.problems import problems_of


@dataclass
class Item:
    word: str = "a"
    count: int | None = None


@dataclass
class Group:
    rate: float = 0.5
    on: bool = False
    words: list[str] = field(default_factory=list)


@dataclass
class Toy:
    size: int = 1
    label: str | None = None
    group: Group = field(default_factory=Group)
    items: list[Item] = field(default_factory=lambda: [Item()])

    def problems(self):
        return ["size is negative"] if self.size < 0 else []


@pytest.fixture
def configs(tmp_path, monkeypatch):
    """A folder of configs of the kind ``toy``."""
    monkeypatch.setattr("qd.config.loading.config_folder", lambda: tmp_path)
    folder = tmp_path / "toy"
    folder.mkdir()
    (folder / "default.yaml").write_text("size: 2\ngroup: {rate: 1e-3}\n")
    (folder / "small.yaml").write_text("size: 3\nitems:\n  - word: b\n  - {word: c, count: 2}\n")
    return folder


def test_without_an_overlay_the_default_file_is_merged_into_the_schema(configs):
    assert load_config(Toy, "toy") == Toy(size=2, group=Group(rate=1e-3))


def test_an_overlay_changes_only_what_it_states_and_replaces_lists(configs):
    expected = Toy(size=3, group=Group(rate=1e-3), items=[Item("b"), Item("c", 2)])
    assert load_config(Toy, "toy", "small") == expected
    assert load_config(Toy, "toy", str(configs / "small.yaml")) == expected


def test_overrides_come_last_and_the_last_one_wins(configs):
    overrides = ["size=7", "size=8", "group.on=true", "group.words=[x, y z]", "label=a=b", "items=[{word: 'd'}]"]
    expected = Toy(8, "a=b", Group(1e-3, True, ["x", "y z"]), [Item("d")])
    assert load_config(Toy, "toy", "small", overrides) == expected


def test_null_is_a_value_where_the_schema_allows_it(configs):
    assert load_config(Toy, "toy", None, ["label=x", "label=null"]).label is None
    assert problems_of(Toy, "toy", None, ["size=null"]) == ["override 'size=null': size must be an integer, not None"]


def test_a_kind_without_default_file_starts_from_the_schema(configs):
    assert load_config(Toy, "other") == Toy()


def test_all_problems_are_reported_together_with_their_layer(configs):
    (configs / "bad.yaml").write_text("sise: 3\ngroup: {rate: fast, one: 1}\nitems: [{wort: x}]\n")
    overrides = ["size=-1", "label=[1]", "nonsense", "group=3", "rate=2"]
    where = str(configs / "bad.yaml")
    assert problems_of(Toy, "toy", "bad", overrides) == [
        f"{where}: unknown key 'sise'; did you mean 'size'?",
        f"{where}: group.rate must be a number, not 'fast'",
        f"{where}: unknown key 'group.one'; did you mean 'group.on'?",
        f"{where}: unknown key 'items[0].wort'; did you mean 'items[0].word'?",
        "override 'label=[1]': label must be text or null, not [1]",
        "override 'nonsense' does not have the form key=value",
        "override 'group=3': group must be a group of settings (rate, on, words), not 3",
        "override 'rate=2': unknown key 'rate'; did you mean 'group.rate'?",
        "size is negative",
    ]


def test_the_error_for_a_list_of_groups_names_their_settings(configs):
    (problem,) = problems_of(Toy, "toy", None, ["items=3"])
    assert problem.startswith("override 'items=3': items must be a list") and "(word, count), not 3" in problem


def test_a_missing_config_lists_those_present(configs):
    (problem,) = problems_of(Toy, "toy", "smal")
    assert "smal.yaml" in problem and problem.endswith("one of: default, small")


def test_no_value_is_checked_if_a_config_cannot_be_read(configs):
    """Its changes are unknown; an override that fits no config is reported too."""
    (configs / "broken.yaml").write_text("size: [1")
    (missing,) = problems_of(Toy, "toy", "nope", ["size=-1"])
    assert "there is no config" in missing
    assert len(problems_of(Toy, "toy", "broken", ["size=-1"])) == 1
    assert problems_of(Toy, "toy", "nope", ["sise=1"])[1:] == [
        "override 'sise=1': unknown key 'sise'; did you mean 'size'?"
    ]


def test_an_overlay_may_extend_another_and_states_only_what_differs(configs, tmp_path):
    (configs / "smaller.yaml").write_text("extends: small\nsize: 1\n")
    (configs / "smallest.yaml").write_text("extends: smaller\ngroup: {'on': true}\n")
    small = load_config(Toy, "toy", "small")
    assert load_config(Toy, "toy", "smallest") == Toy(1, None, Group(1e-3, True), small.items)
    assert load_config(Toy, "toy", str(configs / "smallest.yaml")) == load_config(Toy, "toy", "smallest")


def test_an_overlay_that_extends_itself_or_nothing_is_an_error(configs):
    (configs / "a.yaml").write_text("extends: b\n")
    (configs / "b.yaml").write_text("extends: a\n")
    (problem,) = problems_of(Toy, "toy", "a")
    assert problem.startswith(f"{configs / 'a.yaml'} extends itself")
    (configs / "c.yaml").write_text("extends: nothing\n")
    assert "there is no config" in problems_of(Toy, "toy", "c")[0]
    (configs / "d.yaml").write_text("extends: [a]\n")
    assert "extends must be the name of another config, not ['a']" in problems_of(Toy, "toy", "d")[0]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"size: [1", "restore it if it was cut"),
        (b"- 1\n", "holds a list"),
        (b"label: \xff\n", "cannot be read"),
    ],
)
def test_a_file_that_is_not_a_mapping_is_an_error(configs, content, expected):
    (configs / "broken.yaml").write_bytes(content)
    (problem,) = problems_of(Toy, "toy", "broken")
    assert "broken.yaml" in problem and expected in problem


def test_yaml_and_back_is_the_identity(configs, tmp_path):
    config = Toy(5, "x: y # z", Group(1.5e-4, True, ["null", "1"]), [Item("ü", None)])
    (tmp_path / "again.yaml").write_text(to_yaml(config), encoding="utf-8")
    assert load_config(Toy, "other", str(tmp_path / "again.yaml")) == config


def test_config_error_is_a_value_error_with_a_bullet_for_each_problem():
    error = ConfigError(["a is wrong", "b is wrong"])
    assert isinstance(error, ValueError)
    assert str(error) == "2 problems in the configuration:\n  • a is wrong\n  • b is wrong"


@pytest.mark.parametrize(
    "value", ["${oc.env:HF_TOKEN}", "a ${ oc.env : HF_TOKEN }", "${${label}:HF_TOKEN}", "${oc.decode:1}"]
)
@pytest.mark.parametrize("place", ["label='{}'", "group.words=[a, '{}']", "items=[{{word: '{}'}}]"])
def test_functions_in_a_config_are_refused(configs, monkeypatch, value, place):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    override = place.format(value)
    (problem,) = problems_of(Toy, "toy", None, [override])
    assert repr(value) in problem and "expected the value itself" in problem and "hf_secret" not in problem
    (configs / "small.yaml").write_text(yaml.safe_dump(OmegaConf.to_container(OmegaConf.from_dotlist([override]))))
    (problem,) = problems_of(Toy, "toy", "small")
    assert str(configs / "small.yaml") in problem and "hf_secret" not in problem


def test_a_setting_may_refer_to_another_one(configs):
    assert load_config(Toy, "toy", None, ["label=size ${size}"]).label == "size 2"


def test_a_deeply_nested_config_is_one_problem(configs):
    (configs / "deep.yaml").write_text("label: " + "[" * 5000 + "]" * 5000)
    (problem,) = problems_of(Toy, "toy", "deep")
    assert "deep.yaml is nested too deeply" in problem and "\n" not in problem
