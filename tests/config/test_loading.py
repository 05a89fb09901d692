from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from qd.commands.base import BaseConfig
from qd.config import evaluation as evaluation_schema
from qd.config import train as train_schema
from qd.config.data import DataConfig
from qd.config.embedder import EmbedderTrainConfig
from qd.config.loading import ConfigError, config_folder, load_config, to_yaml
from qd.config.objective import ObjectiveConfig
from qd.config.policy import RolloutConfig
from qd.config.train import TrainConfig
from qd.data.prompt_sources import PromptSource

SCHEMAS = {"train": TrainConfig, "embedder": EmbedderTrainConfig, "base": BaseConfig}


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


@pytest.fixture(autouse=True)
def models(monkeypatch):
    """Replaces the shipped models: only these names exist."""

    def known(name):
        if name.startswith("facebook/musicgen-"):
            return
        if name not in ("base", "builtin", "builtin-heldout"):
            raise ValueError(f"no model {name!r}")

    monkeypatch.setattr(train_schema, "resolve_model", known)
    monkeypatch.setattr(evaluation_schema, "check_embedder", known)


@pytest.fixture
def configs(tmp_path, monkeypatch):
    """A folder of configs of the kind ``toy``."""
    monkeypatch.setattr("qd.config.loading.config_folder", lambda: tmp_path)
    folder = tmp_path / "toy"
    folder.mkdir()
    (folder / "default.yaml").write_text("size: 2\ngroup: {rate: 1e-3}\n")
    (folder / "small.yaml").write_text("size: 3\nitems:\n  - word: b\n  - {word: c, count: 2}\n")
    return folder


def problems_of(*arguments) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(*arguments)
    return caught.value.problems


def train_problems(**changes) -> list[str]:
    return TrainConfig(**changes).problems()


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


def test_any_key_of_an_optional_group_creates_it():
    config = load_config(TrainConfig, "train", None, ["model.lora.rank=4"])
    assert (config.model.lora.rank, config.model.lora.alpha, config.model.lora.dropout) == (4, 32.0, 0.0)
    assert load_config(TrainConfig, "train", None, ["model.lora.rank=4", "model.lora=null"]).model.lora is None
    (problem,) = problems_of(TrainConfig, "train", None, ["model.lora.rnak=4"])
    assert "unknown key 'model.lora.rnak'; did you mean 'model.lora.rank'?" in problem


@pytest.mark.parametrize("stereo", ["", "stereo-"])
@pytest.mark.parametrize("size", ["small", "medium", "large"])
def test_the_musicgen_configs_have_the_papers_numbers(size, stereo):
    config, paper = (
        load_config(TrainConfig, "train", f"musicgen-{stereo}{size}"),
        load_config(TrainConfig, "train", "paper"),
    )
    assert config.model.name == f"facebook/musicgen-{stereo}{size}"
    assert (config.rollout.seconds, config.data.batch_size, config.rollout.samples_per_prompt) == (10.0, 128, 2)
    assert (config.objective, config.optimizer, config.guidance) == (paper.objective, paper.optimizer, paper.guidance)
    assert (config.model.lora is not None) == (size == "large")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"size: [1", "cannot be read"),
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


@pytest.mark.parametrize(
    "path",
    sorted(path for kind in SCHEMAS for path in config_folder().glob(f"{kind}/*.yaml")),
    ids=lambda path: f"{path.parent.name}-{path.stem}",
)
def test_every_shipped_config_builds(path):
    """Sweeps and reproductions need trained models: tests/commands/test_sweep.py, tests/report/reproduction."""
    assert load_config(SCHEMAS[path.parent.name], path.parent.name, path.stem)


def test_the_default_file_states_every_default_of_the_schema():
    assert load_config(TrainConfig, "train") == TrainConfig()


def test_the_paper_config_has_the_papers_numbers():
    config = load_config(TrainConfig, "train", "paper")
    assert (config.data.batch_size, config.rollout.samples_per_prompt, config.objective.estimator) == (128, 2, "shared")
    assert (config.guidance.scale, config.guidance.negative_prompt) == (3.0, "Bad audio quality.")
    assert (config.optimizer.learning_rate, config.objective.beta_ramp_steps, config.rollout.temperature) == (
        1.5e-4,
        1000,
        0.99,
    )


def test_defaults_have_no_problem():
    assert train_problems() == []


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["beta=-1"], "beta is -1.0"),
        (["beta=.inf"], "beta is inf"),
        (["seed=-1"], "seed is -1"),
        (["name=../x"], "name is '../x'"),
        (["guidance.scale=.nan"], "guidance.scale is nan"),
        (["guidance.scale=-1"], "guidance.scale is -1.0; expected a finite number, 0 or more"),
        (["rollout.temperature=0"], "rollout.temperature is 0.0"),
        (["rollout.temperature=.nan"], "rollout.temperature is nan"),
        (["rollout.seconds=.inf"], "rollout.seconds is inf"),
        (["objective.estimator=pair"], "'pair'; expected one of shared, pairs; did you mean 'pairs'?"),
        (["objective.baseline=x"], "objective.baseline is 'x'; expected one of none, other_prompts"),
        (["objective.shuffle_advantages=true", "data.micro_batch_size=8"], "needs 2 prompts or more in a micro-batch"),
        (
            ["objective.shuffle_advantages=true", "objective.baseline=other_prompts"],
            "objective.baseline=other_prompts",
        ),
        (["objective.baseline_decay=1"], "objective.baseline_decay is 1.0"),
        (["objective.beta_ramp_steps=-1"], "objective.beta_ramp_steps is -1"),
        (["optimizer.learning_rate=0"], "optimizer.learning_rate is 0.0"),
        (["optimizer.beta2=1"], "optimizer.beta2 is 1.0"),
        (["optimizer.gradient_clip=-1"], "optimizer.gradient_clip is -1.0"),
        (["evaluation.every=0"], "evaluation.every is 0"),
        (["evaluation.protocol=fast"], "evaluation.protocol is 'fast'"),
        (["evaluation.n_samples=1"], "evaluation.n_samples is 1"),
        (["evaluation.prompts=/no/such.txt"], "evaluation.prompts: prompt file '/no/such.txt' cannot be read"),
        (
            ["evaluation.adherence=clip"],
            "evaluation.adherence: adherence scorer 'clip': expected builtin, clap:<hub name",
        ),
        (["evaluation.adherence=clap:/no/such"], "evaluation.adherence: folder '/no/such' does not exist"),
        (
            ["evaluation.preference=mos"],
            "evaluation.preference: preference scorer 'mos': expected builtin, audiobox:<hub",
        ),
        (["evaluation.adherence_weight=-1"], "evaluation.adherence_weight is -1.0"),
        (["evaluation.adherence_weight=.nan"], "evaluation.adherence_weight is nan"),
        (["model.dtype=float16"], "model.dtype is 'float16'; expected one of float32, bfloat16"),
        (["model.dtype=float16"], "65,504"),
        (["model.dtype=int8"], "model.dtype is 'int8'; expected one of float32, bfloat16"),
        (["model.dtype=bfloat16", "model.lora.rank=4"], "model.dtype is 'bfloat16' with model.lora; expected float32"),
        (["model.revision=main"], "model.revision is set, but model.name='base' is not a hub name"),
        (["model.name=a/b@v1", "model.revision=v2"], "model.revision is 'v2', but model.name='a/b@v1' names one too"),
        (["model.offline=true"], "model.offline is set, but model.name='base' is not a hub name"),
        (["model.lora.rank=0"], "model.lora.rank is 0"),
        (["model.lora.alpha=0"], "model.lora.alpha is 0.0"),
        (["model.lora.dropout=0.1"], "model.lora.dropout is 0.1; expected a finite number, 0 ("),
        (["model.lora.target_modules=[]"], "model.lora.target_modules is empty"),
        (["model.lora.target_modules=[q]"], "model.lora.target_modules is 'q'; expected one of q_proj"),
        (["trainer.max_steps=0"], "trainer.max_steps is 0"),
        (["trainer.keep_weights=0"], "trainer.keep_weights is 0"),
        (["trainer.device=gpu"], "trainer.device: device='gpu'"),
        (["trainer.strategy=fsp"], "trainer.strategy is 'fsp'; expected one of ddp, fsdp"),
        (["trainer.strategy=fsdp"], "trainer.strategy is 'fsdp' on one device"),
        (["trainer.strategy=fsdp", "model.lora.rank=4"], "trainer.strategy is 'fsdp' with model.lora; expected ddp"),
        (["trainer.precision=16"], "trainer.precision is '16'"),
        (["model.name=bass"], "model.name: no model 'bass'"),
        (["reward.embedder=x"], "reward.embedder: no model 'x'"),
        (["data.prompts=[]"], "data.prompts is empty"),
        (["data.prompts=[{kind: text}]"], "data.prompts[0].path is missing"),
        (["data.prompts=[{kind: jsonl}]"], "data.prompts[0].path is missing; a source of kind 'jsonl' needs it"),
        (["data.prompts=[{kind: generic, path: x}]"], "data.prompts[0].path is set, but a source of kind 'generic'"),
        (["data.prompts=[{kind: musiccaps, path: x, column: y}]"], "data.prompts[0].column is set"),
        (["evaluation.prompts=builtin"], "evaluation.prompts: the built-in grammar"),
        (["data.prompts=[{kind: file}]"], "data.prompts[0].kind is 'file'"),
        (["data.prompts=[{path: x.txt}]"], "data.prompts[0].path is set, but a source of kind 'builtin' has none"),
        (["data.prompts=[{kind: text, path: x, column: y}]"], "data.prompts[0].column is set"),
        (["data.prompts=[{}, {weight: 2000}]"], "data.prompts[0].weight is 1.0; expected 1/1024"),
        (["data.prompts=[{weight: 0}, {size: 0}]"], "data.prompts[0].weight is 0.0"),
        (
            ["data.prompts=[{kind: text, path: /no/such.txt}]"],
            "data.prompts[0]: prompt file '/no/such.txt' cannot be read",
        ),
    ],
)
def test_a_bad_value_is_named(overrides, named):
    assert any(named in problem for problem in problems_of(TrainConfig, "train", None, overrides))


def test_all_bad_values_are_reported_together():
    problems = problems_of(TrainConfig, "train", None, ["beta=-1", "rollout.temperature=0", "trainer.max_step=3"])
    assert len(problems) == 3 and "did you mean 'trainer.max_steps'?" in problems[0]


@pytest.mark.parametrize(
    ("n", "batch", "micro", "named"),
    [
        (1, 16, 16, ["rollout.samples_per_prompt is 1"]),
        (3, 16, 16, ["data.batch_size=16", "data.micro_batch_size=16"]),
        (4, 16, 6, ["data.batch_size=16 is not a multiple of data.micro_batch_size=6", "data.micro_batch_size=6"]),
        (4, 0, 16, ["data.batch_size is 0"]),
        (4, 16, 32, ["data.batch_size=16 is not a multiple of data.micro_batch_size=32"]),
        (4, 32, 8, []),
        (2, 128, 16, []),
    ],
)
def test_batches_hold_whole_prompts(n, batch, micro, named):
    problems = train_problems(rollout=RolloutConfig(samples_per_prompt=n), data=DataConfig(batch, micro))
    assert len(problems) == len(named)
    assert all(start in problem for start, problem in zip(named, problems, strict=True))


@pytest.mark.parametrize(("micro", "fine"), [(8, False), (16, True), (32, True)])
def test_the_baseline_over_other_prompts_needs_another_prompt(micro, fine):
    problems = train_problems(objective=ObjectiveConfig(baseline="other_prompts"), data=DataConfig(32, micro))
    assert (problems == []) if fine else ("moving_average" in problems[0])


def test_prompt_files_are_read(tmp_path):
    (tmp_path / "a.txt").write_text("calm piano\n")
    (tmp_path / "b.csv").write_text("id,text\n1,fast drums\n")
    good = [PromptSource("text", str(tmp_path / "a.txt")), PromptSource("csv", str(tmp_path / "b.csv"), "text")]
    good.append(PromptSource("generic"))
    assert train_problems(data=DataConfig(prompts=good)) == []
    good[1].column = "caption"
    (problem,) = train_problems(data=DataConfig(prompts=good))
    assert "data.prompts[1]" in problem and "present: id, text" in problem


@pytest.mark.parametrize(("n_prompts", "fine"), [("null", True), ("3", True), ("4", False)])
def test_the_evaluation_prompts_must_be_enough(tmp_path, n_prompts, fine):
    file = tmp_path / "prompts.txt"
    file.write_text("calm piano\nfast drums\n\nsad strings\n")
    overrides = [f"evaluation.prompts={file}", f"evaluation.n_prompts={n_prompts}"]
    if fine:
        load_config(TrainConfig, "train", None, overrides)
    else:
        assert "holds 3 prompts, and 4 are needed" in problems_of(TrainConfig, "train", None, overrides)[0]


def test_evaluation_prompts_may_be_of_any_format(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"words": "calm piano"}\n{"words": "fast drums"}\n{"words": "Calm piano"}\n')
    fine = [f"evaluation.prompts={tmp_path}/a.jsonl:words", "evaluation.prompts=generic"]
    for override in fine:
        load_config(TrainConfig, "train", None, [override])
    (problem,) = problems_of(TrainConfig, "train", None, [fine[0], "evaluation.n_prompts=3"])
    assert "holds 2 prompts, and 3 are needed" in problem


def test_no_or_one_evaluation_prompt_is_too_few(tmp_path):
    for content, expected in {
        "calm piano\n": "holds 1 prompts, and 2 are needed",
        "\n \n": "contains no prompt",
    }.items():
        (tmp_path / "prompts.txt").write_text(content)
        (problem,) = problems_of(TrainConfig, "train", None, [f"evaluation.prompts={tmp_path / 'prompts.txt'}"])
        assert expected in problem


def test_config_error_is_a_value_error_with_a_bullet_for_each_problem():
    error = ConfigError(["a is wrong", "b is wrong"])
    assert isinstance(error, ValueError)
    assert str(error) == "2 problems in the configuration:\n  • a is wrong\n  • b is wrong"
