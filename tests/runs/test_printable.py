from __future__ import annotations

import sys
import warnings

import pytest

from qd.cli import main as cli
from qd.runs.printable import printable
from qd.runs.quiet import quieten_libraries

TYPED = "\x1b[2J\x1b]0;title\x07\r\b\x7f\x9b31m\u202egnp"
HOSTILE = f"{TYPED}\udcff"  # the last character, a byte that is not UTF-8, is refused where it is typed


def controls(text: str) -> list[str]:
    return [letter for letter in text if letter != "\n" and not letter.isprintable() and letter not in "\t "]


def test_control_characters_are_escaped_and_other_text_stays():
    assert controls(HOSTILE) and not controls(printable(HOSTILE))
    assert printable("β = 15\n\tcafé 日本 (λ)") == "β = 15\n\tcafé 日本 (λ)"
    assert printable("a\x1b[2Jb") == "a\\x1b[2Jb"
    printable(HOSTILE).encode("utf-8")


@pytest.mark.parametrize(
    "words",
    [
        ["sample", "--prompt", "x", "--model", TYPED],
        ["sample", "--prompt", "x", "--out", f"/dev/null/{TYPED}"],
        ["fad", "--audio", TYPED],
        ["merge", "--a", TYPED, "--b", TYPED],
        ["train", f"name={TYPED}", "trainer.max_stepz=1"],
        ["evaluate", "--model", TYPED],
        ["report", "--points", TYPED],
        ["config", "train", "--config", TYPED],
        ["embedder-report", "--data", TYPED, "--embedder", TYPED],
    ],
)
def test_names_in_errors_are_escaped(capsys, words):
    assert cli.main(words) == 2
    out, errors = capsys.readouterr()
    assert errors.startswith(f"qd {words[0]}: ") and not controls(out + errors)


def test_names_in_results_and_warnings_are_escaped(capsys, monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)
    monkeypatch.setattr(sys.modules["qd.cli.options"], "load", lambda path: lambda **options: HOSTILE)
    assert cli.main(["sample", "--prompt", "x"]) == 0
    quieten_libraries()
    text = warnings.formatwarning(f"{HOSTILE} is skipped", UserWarning, "a.py", 1)
    assert not controls(capsys.readouterr().out + text) and "is skipped" in text
