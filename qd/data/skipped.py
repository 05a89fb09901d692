"""Counts bad recordings by cause, lists them in a file, and stops the run if there are too many."""

from __future__ import annotations

import fcntl
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from qd.data.audio_files import BadAudioError
from qd.data.recordings import RecordingsError

MINIMUM_CHECKED = 20
"""Number of checked recordings below which the share of bad ones is not tested."""
RELIABLE_CHECKED = 100
"""Number of checked recordings from which the share of bad ones is exact."""


class SkippedFiles:
    """Bad recordings of one library, as counted by one process.

    Every process counts its own recordings; all processes share the file. Each line is written under a lock, and only
    if its path is not listed yet, so that a recording is listed once for any number of workers, ranks and restarts.

    Args:
        path: JSONL file, one object per line: ``path``, ``cause``, ``detail``; None writes no file.
        max_share: Highest share of bad recordings among those checked; above, the run stops.
        total: Number of recordings in the library; None if unknown.
        quiet: Whether the caller does not report them.
    """

    def __init__(self, path: Path | None, max_share: float, total: int | None = None, quiet: bool = False) -> None:
        self.path, self.max_share, self.total, self.quiet = path, max_share, total, quiet
        self._checked: set[str] = set()
        self._bad: dict[str, BadAudioError] = {}

    def record(self, names: Iterable[str], bad: Mapping[str, BadAudioError]) -> None:
        """Records the checked recordings ``names``, and the errors of the bad ones among them.

        Raises:
            RecordingsError: More than ``max_share`` are bad. The share is not tested below 20 checked recordings; in a
                larger library the first 100 count as checked and good unless they are known to be bad.
        """
        self._checked.update(names)
        new = {name: error for name, error in bad.items() if name not in self._bad}
        self._bad |= new
        if new:
            append_skipped(self.path, new)
        checked = len(self._checked)
        reliable = RELIABLE_CHECKED if self.total is None else min(RELIABLE_CHECKED, self.total)
        if checked >= MINIMUM_CHECKED and len(self._bad) > self.max_share * max(checked, reliable):
            raise RecordingsError(
                f"{len(self._bad)} of {checked} checked recordings are bad, more than data.max_bad_share="
                f"{self.max_share}: {self.summary()}; repair or remove them, or raise data.max_bad_share"
            )

    def summary(self) -> str:
        """Returns text such as ``2 truncated, 1 silent (such as a.wav, silent: …), listed in runs/x/skipped.jsonl``."""
        if not self._bad:
            return "none"
        causes = Counter(error.cause for error in self._bad.values())
        counts = ", ".join(f"{count} {cause}" for cause, count in causes.most_common())
        name, error = next(iter(self._bad.items()))
        listed = f", listed in {self.path}" if self.path else ""
        return f"{counts} (such as {name}, {error}){listed}"


def append_skipped(path: Path | None, bad: Mapping[str, BadAudioError]) -> None:
    """Adds a line for each bad recording that the file does not list yet."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        listed = {json.loads(line)["path"] for line in file}
        for name, error in bad.items():
            if name not in listed:
                file.write(json.dumps({"path": name, "cause": error.cause, "detail": error.detail}) + "\n")
