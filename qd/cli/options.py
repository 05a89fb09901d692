"""The parser of a command, and the options that several commands share."""

from __future__ import annotations

import argparse
import inspect
import json
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from typing import Any

from qd.runs.printable import printable
from qd.schema.paths import expand_home

MODELS = "base, beta0, beta15, a run, a folder or a hub name owner/name[@revision]"
"""Names of models, for help texts."""
YES, NO = ("1", "true", "yes"), ("0", "false", "no")


@dataclass
class Options:
    """The parsed options of a command.

    Attributes:
        values: Values of plain options, by name; an option that is not given is absent.
        settings: Values of options that set a setting, by its dotted key.
        words: Overrides: words of the form key=value.
    """

    values: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)

    @property
    def overrides(self) -> list[str]:
        """All settings as overrides for ``load_config``; words come last, so they win."""
        settings = (f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in self.settings.items())
        return [*settings, *self.words]


@dataclass(frozen=True)
class Command:
    """A command of the command line.

    Attributes:
        name: Name on the command line.
        summary: Description; its first sentence is in the list of commands.
        example: Command line that works.
        add: Adds the options to the parser.
        run: Runs the command; None prints the result of ``function``.
        function: ``module:name`` of the function that does the work, whose parameters are the options.
        schema: ``module:name`` of the config class whose settings the options set.
        overrides: Whether key=value words may follow.
        shared: Whether several processes share the work.
    """

    name: str
    summary: str
    example: str
    add: Callable[[CommandParser], None]
    run: Callable[[Options], None] | None = None
    function: str | None = None
    schema: str | None = None
    overrides: bool = False
    shared: bool = False

    def parse(self, words: Sequence[str]) -> Options:
        """Parses the words after the command's name; exits with status 2 if they are wrong."""
        parser = CommandParser(self)
        self.add(parser)
        return parser.options(words)

    def __call__(self, options: Options) -> None:
        """Runs the command."""
        if self.run is not None:
            self.run(options)
        else:
            print(printable(load(self.function)(**options.values)))


def load(path: str) -> Any:
    """Returns the object at ``module:name``. The import takes seconds, so it happens only when needed."""
    module, name = path.split(":")
    return getattr(import_module(module), name)


class CommandParser(argparse.ArgumentParser):
    """Parses the options of a command; help texts and defaults come from the code that holds them, on ``--help``."""

    def __init__(self, command: Command) -> None:
        notes = [f"example:\n  {command.example}"]
        if command.overrides:
            notes.append(
                "Any setting can follow as key=value, with its dotted key; `qd config <kind>` lists all settings."
            )
        super().__init__(
            prog=f"qd {command.name}",
            description=command.summary,
            epilog="\n\n".join(notes),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self.command = command
        self.keys: dict[str, str] = {}

    def option(self, *names: str, help: str, **arguments: Any) -> None:
        """Adds a plain option; it is absent from the result if it is not given and has no default here."""
        self.add_argument(*names, help=help.replace("%", "%%"), **{"default": argparse.SUPPRESS, **arguments})

    def path(self, *names: str, help: str, **arguments: Any) -> None:
        """Adds a plain option whose value names files or folders, in which ``~`` is the user's home folder."""
        self.option(*names, help=help, type=expand_home, **arguments)

    def flag(self, *names: str, help: str) -> None:
        """Adds an option without value."""
        self.option(*names, help=help, action="store_true")

    def setting(self, name: str, key: str, **arguments: Any) -> None:
        """Adds an option that sets a setting of the schema, whose help text and default it shows."""
        action = self.add_argument(name, **{"default": argparse.SUPPRESS, "help": key, **arguments})
        self.keys[action.dest] = key

    def options(self, words: Sequence[str]) -> Options:
        """Parses words; options and overrides may come in any order."""
        namespace, rest = self.parse_known_args([text for word in words for text in self._expanded(word)])
        if unknown := [text for text in rest if text.startswith("-") or not self.command.overrides]:
            self.error("\n".join(map(self._unknown, unknown)))
        for word in words:
            self._refuse_other_encoding(word)
        options = Options(words=rest)
        for action in self._actions:
            if hasattr(namespace, action.dest):
                value = getattr(namespace, action.dest)
                value = self._without_overrides(value, options.words) if action.nargs == "+" else value
                if action.dest in self.keys:
                    options.settings[self.keys[action.dest]] = value
                else:
                    options.values[action.dest] = value
        return options

    def format_help(self) -> str:
        """Returns the help, with the texts and defaults that the code holds."""
        for action in self._actions:
            if action.dest in self.keys and action.help == self.keys[action.dest]:
                text = import_module("qd.config.documentation").option_help(load(self.command.schema), action.help)
                action.help = text.replace("%", "%%")
            elif action.dest != "help" and (default := self._default(action)):
                action.help += f" (default: {default})".replace("%", "%%")
        return super().format_help()

    def _default(self, action: argparse.Action) -> str:
        default = action.default
        if default is argparse.SUPPRESS and self.command.function is not None:
            parameters = inspect.signature(load(self.command.function)).parameters
            default = parameters[action.dest].default if action.dest in parameters else None
        if default is argparse.SUPPRESS:
            return ""
        if isinstance(default, float):
            return f"{default:g}"
        return str(default) if isinstance(default, (str, int)) and not isinstance(default, bool) else ""

    def _expanded(self, word: str) -> Iterator[str]:
        """The words that argparse expects for a word of make.

        ``--flag=1`` becomes ``--flag``, ``--flag=0`` is dropped, and ``--seeds=0 1`` becomes ``--seeds 0 1``. Without
        ``=`` a value is one word, even if it contains spaces.
        """
        name, equals, value = word.partition("=")
        action = self._option_string_actions.get(name)
        if not equals or action is None or action.nargs not in (0, "+"):
            yield word
        elif action.nargs == "+":
            try:
                yield from (name, *shlex.split(value))
            except ValueError as error:
                self.error(f"{name} is {value!r}, which cannot be split at spaces: {error}")
        elif value.lower() in YES:
            yield name
        elif value.lower() not in NO:
            self.error(f"{name} is {value!r}; expected {' or '.join((YES[0], NO[0]))}")

    def _refuse_other_encoding(self, word: str) -> None:
        """Refuses a text that is not UTF-8; the name of a file may have any encoding."""
        name = word.partition("=")[0]
        action = self._option_string_actions.get(name)
        if (action is None or action.type is not expand_home) and not _is_unicode(word) and not os.path.exists(word):
            self.error(f"{word!r} is not UTF-8 text; set the terminal's character encoding to UTF-8 and type it again")

    def _without_overrides(self, values: list[str], overrides: list[str]) -> list[str]:
        """Moves the overrides that follow the values of an option."""
        if not self.command.overrides:
            return values
        overrides += [text for text in values if "=" in text]
        return [text for text in values if "=" not in text]

    def _unknown(self, word: str) -> str:
        """The error of an unknown word, with the nearest option, and both names as make spells them."""
        name = word.partition("=")[0]
        if not name.startswith("--"):
            return f"unrecognized argument {word!r}; `{self.prog} --help` lists the options"
        nearest = get_close_matches(name, self._option_string_actions, n=1)
        hint = f"did you mean {_with_variable(nearest[0])}?" if nearest else f"`{self.prog} --help` lists all"
        return f"unrecognized option {_with_variable(name)}; {hint}"


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def add_run_options(parser: CommandParser, kind: str) -> None:
    """Adds the options of a command that trains."""
    add_config(parser, kind)
    parser.path("--resume", metavar="RUN", help="run to resume from its last checkpoint, by folder or name")
    parser.flag("--recover", help="with --resume: if last.ckpt is damaged, go on from the newest weights that are not")
    parser.setting("--name", "name")
    parser.setting("--seed", "seed")
    parser.setting("--device", "trainer.device")


def add_config(parser: CommandParser, kind: str) -> None:
    """Adds the option that names an overlay."""
    parser.path("--config", help=f"overlay: the name of a file in configs/{kind}/, or the path of a YAML file")


def add_device(parser: CommandParser) -> None:
    """Adds the option of a command without config that names the device."""
    parser.option("--device", help="auto, cpu, mps, cuda or cuda:<index>")


def add_sampling(parser: CommandParser) -> None:
    """Adds the options of a command without config that samples."""
    add_negative_prompt(parser)
    parser.option("--seconds", type=float, help="length of a clip in seconds")
    parser.option("--temperature", type=float, help="sampling temperature, above 0")
    parser.option("--seed", type=int, help="seed for token sampling")
    add_device(parser)


def add_negative_prompt(parser: CommandParser) -> None:
    """Adds the option of a command without config that names the negative prompt."""
    parser.option("--negative-prompt", help="negative prompt of the guidance; '' is unconditional guidance")


def _with_variable(option: str) -> str:
    """``--top-k (TOP_K in make)``."""
    return f"{option} ({option.strip('-').replace('-', '_').upper()} in make)"
