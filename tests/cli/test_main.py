from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from qd.callbacks.guards import NonFiniteError
from qd.cli import main as cli
from qd.cli.main import COMMANDS
from qd.cli.options import CommandParser, load
from qd.modules.embedder import CollapseError

FUNCTIONS = {name: command for name, command in COMMANDS.items() if command.function and name != "pick"}
"""The commands that are one function."""
REQUIRED = {
    "sample": ["--prompt=x"], "train-preference": ["--data=x"], "ship": ["--model=x", "--name=beta0"],
}  # fmt: skip


@dataclass
class Trainer:
    runs: str = "runs"
    device: str = "auto"
    max_steps: int = 1
    log_every: int = 10


@dataclass
class Schema:
    """The settings of a run that options set."""

    name: str | None = None
    seed: int = 0
    beta: float = 15.0
    reward: dict[str, str] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    trainer: Trainer = field(default_factory=Trainer)


@pytest.fixture
def calls(monkeypatch):
    """Replaces the modules that do the work; lists their calls."""
    made = []

    def replace(module: str, function: str, **attributes) -> None:
        fake = ModuleType(module)
        setattr(fake, function, lambda *args, **kwargs: made.append((function, args, kwargs)))
        for name, value in attributes.items():
            setattr(fake, name, value)
        monkeypatch.setitem(sys.modules, module, fake)

    replace("qd.commands.train", "train")
    replace("qd.commands.train_embedder", "train_embedder")
    replace("qd.commands.embedder_report", "embedder_report")
    replace("qd.commands.scorer_ranges", "scorer_ranges")
    replace("qd.commands.train_preference", "train_preference")
    replace("qd.commands.fad", "fad")
    replace("qd.commands.sample", "sample")
    replace("qd.commands.merge", "merge")
    replace("qd.commands.base", "build")
    monkeypatch.setattr("qd.config.train.TrainConfig", Schema)
    monkeypatch.setattr("qd.config.embedder.EmbedderTrainConfig", Schema)
    monkeypatch.setattr("qd.config.loading.config_folder", lambda: Path("no-configs"))
    return made


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_every_command_has_an_example_and_all_texts(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    assert f"example:\n  qd {command} " in text and "SUPPRESS" not in text


def test_help_shows_the_text_the_range_and_the_default_of_a_setting(capsys):
    with pytest.raises(SystemExit):
        cli.main(["evaluate", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "Sampling temperature T. [> 0] (default: 0.99)" in text and "(default: runs/results/points.jsonl)" in text


def test_help_shows_the_default_of_a_parameter(capsys):
    with pytest.raises(SystemExit):
        cli.main(["scorer-ranges", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "of the guided half, 0 or more (default: 3)" in text and "(default: Bad audio quality.)" in text


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_options_of_a_command_are_the_parameters_of_its_function(name):
    parser = CommandParser(COMMANDS[name])
    COMMANDS[name].add(parser)
    options = {action.dest for action in parser._actions} - {"help"}
    assert options == inspect.signature(load(COMMANDS[name].function)).parameters.keys()


def test_help_lists_every_command_and_does_not_import_torch():
    script = "import sys; from qd.cli import main; print(main.build_parser().format_help(), 'torch' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    listed = {line.split()[0] for line in output.splitlines() if line.startswith("  ")}
    assert listed >= set(COMMANDS)
    assert output.endswith(" False\n")


def test_train_takes_options_and_overrides_in_any_order(calls):
    arguments = [
        "trainer.max_steps=3",
        "--beta",
        "0",
        "--name=x y",
        "reward.a=b",
        "--dry-run",
        "--seed",
        "4",
        "data={}",
    ]
    assert cli.main(["train", *arguments]) == 0
    ((function, (config,), options),) = calls
    assert function == "train" and options == {"resume": None, "dry_run": True}
    assert (config.beta, config.name, config.seed, config.trainer.max_steps) == (0.0, "x y", 4, 3)
    assert config.reward == {"a": "b"}


@pytest.mark.parametrize("command", ["evaluate", "sweep"])
def test_overrides_may_follow_an_option_of_several_values(monkeypatch, command):
    configs = []
    monkeypatch.setattr(f"qd.commands.{command}.{command}", lambda config, dry_run: configs.append(config))
    options = ["--model=base"] if command == "evaluate" else ["--config=shipped", "--only", "betas", "n_samples=3"]
    arguments = [*options, "n_prompts=5", "--seeds", "3", "1", "eval_batch_size=7", "audio_prompts=2", "--device=cpu"]
    assert cli.main([command, *arguments]) == 0
    (config,) = configs
    assert config.seeds == [3, 1] and (config.n_prompts, config.eval_batch_size, config.audio_prompts) == (5, 7, 2)
    assert command == "evaluate" or (config.only, config.n_samples) == (["betas"], 3)


def test_a_seed_that_is_not_a_number_is_an_error(capsys):
    assert cli.main(["evaluate", "--model=base", "--seeds", "0", "x"]) == 2
    assert "seeds must be a list, each element an integer, not ['0', 'x']" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "source"),
    [
        ("my prompts.txt", {"kind": "text", "path": "my prompts.txt"}),
        ("a.csv:the text", {"kind": "csv", "path": "a.csv", "column": "the text"}),
        ("a.csv", {"kind": "csv", "path": "a.csv"}),
        ("a.jsonl:text", {"kind": "jsonl", "path": "a.jsonl", "column": "text"}),
        ("musiccaps:a.csv", {"kind": "musiccaps", "path": "a.csv"}),
        ("generic", {"kind": "generic"}),
        ("C:\\a.txt", {"kind": "text", "path": "C:\\a.txt"}),
    ],
)
def test_the_name_of_a_prompt_file_determines_its_format(calls, given, source):
    assert cli.main(["train", "--prompts", given, "--embedder", "a: {b}"]) == 0
    config = calls[0][1][0]
    assert config.data == {"prompts": [source]}
    assert config.reward == {"embedder": "a: {b}"}


@pytest.mark.parametrize("command", ["train", "train-embedder"])
def test_a_resumed_run_keeps_its_config(calls, command, tmp_path):
    run = tmp_path / "mine"
    run.mkdir()
    (run / "config.yaml").write_text("beta: 3.0\nname: null\n")
    assert cli.main([command, "--resume", str(run), "--name=mine", "--seed=0", "beta=3", "trainer.log_every=9"]) == 0
    ((_, (config,), options),) = calls
    assert options["resume"] == str(run)
    assert (config.beta, config.name, config.trainer.runs, config.trainer.log_every) == (3.0, "mine", str(tmp_path), 9)


def test_changes_that_make_a_resumed_run_another_one_are_reported_together(calls, tmp_path, capsys):
    run = tmp_path / "mine"
    run.mkdir()
    (run / "config.yaml").write_text("beta: 3.0\nname: null\n")
    other = ["--beta=4", "--seed=1", "--name=yours", "--config=quick", "--prompts=p.txt", "--embedder=e"]
    assert cli.main(["train", "--resume", str(run), *other, "trainer.max_steps=9"]) == 2
    error = capsys.readouterr().err
    assert "6 problems" in error and not calls
    assert "config is 'quick'" in error and "remove CONFIG" in error
    assert "beta is 4.0, and this run has 3.0" in error
    assert all(f"• {key} is" in error for key in ("seed", "name", "data.prompts", "reward.embedder"))
    assert cli.main(["train-embedder", "--resume", str(run), "trainer.max_steps=9"]) == 2
    assert "trainer.max_steps is 9, and this run has 1" in capsys.readouterr().err


def test_train_embedder_passes_the_recordings(calls):
    assert cli.main(["train-embedder", "--data", "my: {music}"]) == 0
    assert cli.main(["train-embedder"]) == 0
    assert [args[0].data for _, args, _ in calls] == [{"source": "my: {music}"}, {}]


def test_other_ranks_accept_an_existing_run_folder(calls, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    arguments = ["train-embedder", "--name", "mine", f"trainer.runs={tmp_path}"]
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert cli.main(arguments) == 2
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert cli.main(arguments) == 0


def test_sample_passes_its_options(calls):
    arguments = ["--n", "2", "--guidance=3", "--negative-prompt", "", "--top-k=250", "--top-p", "0.9"]
    assert cli.main(["sample", "--prompt", 'it\'s a "waltz"', *arguments]) == 0
    ((_, _, given),) = calls
    assert (given["top_k"], given["top_p"]) == (250, 0.9)
    assert given.items() >= {"prompt": 'it\'s a "waltz"', "n": 2, "guidance": 3.0, "negative_prompt": ""}.items()


def test_embedder_report_passes_its_options(calls):
    assert cli.main(["embedder-report", "--embedder", "runs/x", "--data=my music", "--n", "64"]) == 0
    ((_, _, given),) = calls
    assert given.items() >= {"embedder": "runs/x", "data": "my music", "n": 64}.items()


def test_merge_passes_its_options(calls):
    assert cli.main(["merge", "--a", "runs/a", "--b=base", "--lambda=-0.5", "--extrapolate", "--out", "x y"]) == 0
    assert cli.main(["merge", "--models", "runs/a:0.25", "base:0.75"]) == 0
    (_, _, two), (_, _, several) = calls
    assert two.items() >= {"a": "runs/a", "b": "base", "lam": -0.5, "extrapolate": True, "out": "x y"}.items()
    assert several == {"models": ["runs/a:0.25", "base:0.75"]}


def test_scorer_ranges_passes_its_options(calls):
    assert cli.main(["scorer-ranges", "--adherence", "clap:my clap", "--preference=audiobox", "--n", "8"]) == 0
    ((_, _, given),) = calls
    assert given == {"adherence": "clap:my clap", "preference": "audiobox", "n": 8}


def test_train_preference_and_fad_pass_their_options(calls):
    assert cli.main(["train-preference", "--data=my ratings.csv", "--embedder", "clap:x", "--weight-decay=0.5"]) == 0
    assert cli.main(["fad", "--audio", "my audio", "--reference=ref", "--embedder=vggish:w.pth", "--seed=3"]) == 0
    preference, distance = (given for _, _, given in calls)
    assert preference.items() >= {"data": "my ratings.csv", "embedder": "clap:x", "weight_decay": 0.5}.items()
    assert distance.items() >= {"audio": "my audio", "reference": "ref", "embedder": "vggish:w.pth", "seed": 3}.items()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_option_that_is_not_given_leaves_the_default_to_the_function(name):
    words = REQUIRED.get(name, [])
    expected = {word[2:].partition("=")[0] for word in words} | ({"model"} if name == "sample" else set())
    assert COMMANDS[name].parse(words).values.keys() == expected


def test_values_of_make_are_split_and_flags_have_values(calls):
    assert cli.main(["merge", "--models=a:0.5 'my b:0.5'", "--extrapolate=1"]) == 0
    assert cli.main(["merge", "--models", "my a", "b", "--extrapolate=0"]) == 0
    assert cli.main(["base", "--stage=codec tokens", "--install=false"]) == 0
    assert cli.main(["sample", "--prompt=x", "--topk=5"]) == 0
    merged, other, base, sampled = calls
    assert merged[2] == {"models": ["a:0.5", "my b:0.5"], "extrapolate": True} and other[2] == {"models": ["my a", "b"]}
    assert base[1] == (["codec", "tokens"], None, False) and sampled[2]["top_k"] == 5


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train", "--betta=1"], "unrecognized option --betta (BETTA in make); did you mean --beta (BETA in make)?"),
        (["sample", "--prompt=x", "--top-q=1"], "did you mean --top-"),
        (["sample", "--prompt=x", "--zzz=1"], "`qd sample --help` lists all"),
        (["sample", "--prompt=x", "a=1"], "unrecognized argument 'a=1'"),
        (["merge", "--extrapolate=maybe"], "--extrapolate is 'maybe'; expected 1 or 0"),
        (["merge", "--models='a b"], "cannot be split"),
        (["sampel"], "unknown command 'sampel'; did you mean 'sample'?"),
        ([], "no command; expected one of train, "),
    ],
)
def test_errors_of_the_parser_name_the_nearest_option(calls, arguments, expected, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2 and expected in capsys.readouterr().err and not calls


def test_base_passes_its_stages(calls):
    assert cli.main(["base", "--stage", "codec", "tokens", "--install"]) == 0
    assert cli.main(["base"]) == 0
    assert [args for _, args, _ in calls] == [(["codec", "tokens"], None, True), (None, None, False)]


@pytest.mark.parametrize("arguments", [["train", "--betta", "1"], ["sample", "--prompt", "x", "a=1"], ["sample"], []])
def test_unknown_and_missing_options_are_errors(calls, arguments):
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2 and not calls


def test_bad_input_is_one_message_and_status_2(calls, capsys):
    assert cli.main(["train", "--beta", "loud", "trainer.max_step=1"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("qd train: 2 problems in the configuration:")
    assert "Traceback" not in error and not calls


@pytest.mark.parametrize(
    ("started", "config_reported", "other_error"),
    [
        ({}, True, "qd train: no such model\n"),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True, "qd train: no such model\n"),
        ({"RANK": "1", "LOCAL_RANK": "1"}, False, "qd train: rank 1: no such model\n"),
        ({"LOCAL_RANK": "1"}, False, "qd train: rank 1: no such model\n"),
        ({"RANK": "8", "LOCAL_RANK": "0"}, True, "qd train: rank 8: no such model\n"),
        ({"SLURM_PROCID": "9", "SLURM_LOCALID": "1"}, False, "qd train: rank 9: no such model\n"),
    ],
)
def test_a_bad_config_is_reported_once_a_machine_and_any_other_error_by_each_rank(
    calls, monkeypatch, capsys, started, config_reported, other_error
):
    for name, value in started.items():
        monkeypatch.setenv(name, value)

    def missing(*args, **kwargs):
        raise ValueError("no such model")

    monkeypatch.setattr(sys.modules["qd.commands.train"], "train", missing)
    assert cli.main(["train", "trainer.max_step=1"]) == 2
    assert ("unknown key" in capsys.readouterr().err) is config_reported
    assert cli.main(["train", "--name=x"]) == 2
    assert capsys.readouterr().err == other_error


def test_problems_of_config_machine_and_folder_are_reported_together(tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    places = ["--name", "mine", f"trainer.runs={tmp_path}", "--device", "cuda:99"]
    assert cli.main(["train", "--beta", "-1", *places]) == 2
    error = capsys.readouterr().err
    assert "3 problems" in error
    assert all(text in error for text in ("beta is -1.0", "'cuda:99' is not on this machine", "exists already"))


def test_a_loss_that_is_not_finite_is_one_message(calls, monkeypatch):
    def broken(config, **kwargs):
        raise NonFiniteError("the loss is nan at step 3")

    monkeypatch.setattr(sys.modules["qd.commands.train"], "train", broken)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train"])
    assert stopped.value.code == "qd train: the loss is nan at step 3"


def test_a_collapsed_embedder_is_one_message(calls, monkeypatch):
    def collapsed(config, **kwargs):
        raise CollapseError("all embeddings are equal")

    monkeypatch.setattr(sys.modules["qd.commands.train_embedder"], "train_embedder", collapsed)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["train-embedder"])
    assert stopped.value.code == "qd train-embedder: all embeddings are equal"


@pytest.mark.parametrize("started_by", ["RANK", "LOCAL_RANK", "SLURM_PROCID"])
def test_only_the_first_process_does_work_that_is_not_shared(calls, monkeypatch, capsys, started_by):
    work = {
        "fad": ["--audio=x"], "scorer-ranges": [], "sample": ["--prompt=x"], "merge": ["--a=x", "--b=y"],
        "embedder-report": [], "train-preference": ["--data=x"], "base": [],
    }  # fmt: skip
    monkeypatch.setenv(started_by, "1")
    for command, arguments in work.items():
        assert cli.main([command, *arguments]) == 0
        message = capsys.readouterr().err
        assert message.startswith(f"qd {command}: ") and "rank 1" in message
    assert calls == []
    assert cli.main(["train", "--name=x"]) == 0 and calls.pop()[0] == "train"
    for number in ("0", ""):  # empty is not set
        monkeypatch.setenv(started_by, number)
        for command, arguments in work.items():
            assert cli.main([command, *arguments]) == 0
        assert len(calls) == len(work)
        calls.clear()


def test_ctrl_c_is_status_130(calls, monkeypatch, capsys):
    def interrupted(**kwargs):
        raise KeyboardInterrupt("saved step 3")

    monkeypatch.setattr(sys.modules["qd.commands.sample"], "sample", interrupted)
    assert cli.main(["sample", "--prompt", "x"]) == 130
    assert capsys.readouterr().err == "qd sample: stopped by Ctrl-C; saved step 3\n"
