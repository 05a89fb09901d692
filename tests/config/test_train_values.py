"""Values that the config of a training run accepts and rejects."""

from __future__ import annotations

import pytest

from qd.config.data import DataConfig
from qd.config.loading import load_config
from qd.config.objective import ObjectiveConfig
from qd.config.policy import RolloutConfig
from qd.config.train import TrainConfig
from qd.data.prompt_sources import PromptSource
from tests.config.problems import problems_of

pytestmark = pytest.mark.usefixtures("models")


def train_problems(**changes) -> list[str]:
    return TrainConfig(**changes).problems()


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
        (["model.revision=main"], "model.revision is set, but model.name='base'"),
        (["model.name=a/b@v1", "model.revision=v2"], "model.revision is 'v2', but model.name='a/b@v1' names one too"),
        (["model.offline=true"], "model.offline is set, but model.name='base'"),
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
