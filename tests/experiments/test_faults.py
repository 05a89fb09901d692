"""A short part of the fault campaign: kills, a full disk and a signal in real processes."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from experiments import fault_disks, fault_inputs, fault_kills, fault_signals, faults
from experiments.bench_tools import check_page
from experiments.fault_case import Fault
from experiments.fault_processes import finish
from experiments.fault_run import first, loss

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"


def test_a_kill_a_full_disk_and_a_signal_lose_nothing(tmp_path: Path) -> None:
    checks = {
        "kill": lambda folder: fault_kills.chain(("operation",), "short", 1, folder),
        "disk": lambda folder: fault_disks.full_disk("short", folder),
        "signal": lambda folder: fault_signals.stop("SIGTERM", "step", "short", folder),
    }
    for name, check in checks.items():
        (tmp_path / name).mkdir()
        assert check(tmp_path / name) is None


def test_a_loss_is_counted_its_folder_kept_and_the_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def lose(folder: Path) -> str:
        (folder / "left").touch()
        return "a step is missing"

    def fail(folder: Path) -> None:
        raise TimeoutError("the process hangs")

    listed = [Fault("good", "one", lambda folder: None), Fault("kill", "two", lose, 5), Fault("kill", "three", fail)]
    monkeypatch.setattr(faults, "all_faults", lambda seed, kills: listed)
    page = tmp_path / "page.md"
    page.write_text(f"before\n{faults.BEGIN}\nold\n{faults.END}\nafter\n")
    monkeypatch.setattr("sys.argv", ["faults", f"--page={page}"])
    assert faults.main() == 1
    printed = capsys.readouterr().out
    kept = Path(printed.partition("a step is missing; kept in ")[2].partition("\n")[0])
    assert (kept / "left").is_file() and "TimeoutError: the process hangs" in printed
    for row in ("| good | 1 | 1 | 0 |", "| kill | 6 | 0 | 6 |", "| **together** | 7 | 1 | 6 |"):
        assert row in printed and row in page.read_text()
    assert "old" not in page.read_text()
    monkeypatch.setattr("sys.argv", ["faults", "--only=good"])
    assert faults.main() == 0


def test_a_difference_is_a_loss(tmp_path: Path) -> None:
    """The comparison itself: a run with another seed has other weights."""
    assert loss(tmp_path) is None
    assert "missing" in loss(tmp_path, least=2)
    status, text = finish(*first(tmp_path), "--seed=1", "trainer.max_steps=1")
    assert status == 0, text
    assert "differs" in loss(tmp_path)


def test_the_campaign_has_what_was_promised() -> None:
    assert signal.SIGTERM.name in fault_signals.SIGNALS
    listed = faults.all_faults(0, 100)
    count = {text: sum(fault.times for fault in listed if text in fault.kind) for text in ("kill −9", "signal", "full")}
    assert count == {"kill −9": 100, "signal": 10, "full": 15}
    assert [fault.name for fault in listed] == [fault.name for fault in faults.all_faults(0, 100)]
    assert {fault.kind for fault in listed if "kill −9" in fault.kind} == {
        f"kill −9: {kind}" for kind in fault_kills.PHASES
    }
    assert sum(fault.kind == faults.INPUT for fault in listed) == len(fault_inputs.faults())
    check_page(PAGE, faults.BEGIN, faults.END)
