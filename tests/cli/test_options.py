"""Options of the command line: their help, their parser and the values that the commands receive."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from qd.cli import main as cli
from qd.cli.main import COMMANDS
from qd.cli.options import CommandParser, load

FUNCTIONS = {name: command for name, command in COMMANDS.items() if command.function and name != "pick"}
"""The commands that are one function."""
REQUIRED = {
    "sample": ["--prompt=x"], "train-preference": ["--data=x"], "ship": ["--model=x", "--name=beta0"],
}  # fmt: skip


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
    assert function == "train" and options == {"resume": None, "dry_run": True, "recover": False}
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


def test_a_seed_that_is_no_number_is_an_error(capsys):
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


def test_train_embedder_passes_the_recordings(calls):
    assert cli.main(["train-embedder", "--data", "my: {music}"]) == 0
    assert cli.main(["train-embedder"]) == 0
    assert [args[0].data for _, args, _ in calls] == [{"source": "my: {music}"}, {}]


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


def test_a_value_with_a_space_is_one_value_unless_make_passes_it():
    parser = CommandParser(COMMANDS["report"])
    COMMANDS["report"].add(parser)
    assert parser.options(["--runs", "my runs/a", "runs/b"]).values["runs"] == ["my runs/a", "runs/b"]
    assert parser.options(["--runs=runs/a 'my runs/b'"]).values["runs"] == ["runs/a", "my runs/b"]
