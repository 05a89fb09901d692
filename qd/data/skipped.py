"""Recordings that cannot be used: counted by cause, listed in a file, and too many of them stop the run."""

from __future__ import annotations

import fcntl
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from qd.data.audio_files import BadAudioError
from qd.data.recordings import RecordingsError

MINIMUM_LOOKED = 20
STEADY_LOOKED = 100


class SkippedFiles:
    """What one process has found of one library.

    Every process counts what it meets itself; the file is common to all of them. Each line is written under a lock
    and only if no line has its path yet, so that a recording is listed once however many workers, ranks and restarts
    come across it.

    Args:
        path: of the JSONL file, one object a line: ``path``, ``cause``, ``detail``; None writes none.
        max_share: of bad ones among those looked at; above, the run stops.
        total: recordings that can be looked at.
    """

    def __init__(self, path: Path | None, max_share: float, total: int | None = None) -> None:
        self.path, self.max_share, self.total = path, max_share, total
        self._looked: set[str] = set()
        self._bad: dict[str, BadAudioError] = {}

    def looked_at(self, names: Iterable[str], bad: Mapping[str, BadAudioError]) -> None:
        """Records that the recordings ``names`` were looked at, and what is wrong with some of them.

        Raises:
            RecordingsError: more than ``max_share`` are bad. A share of few is no share: nothing stops below 20 looked
                at, and until 100 of a larger library are, as many count as good.
        """
        self._looked.update(names)
        new = {name: error for name, error in bad.items() if name not in self._bad}
        self._bad |= new
        if new:
            append_skipped(self.path, new)
        looked = len(self._looked)
        steady = max(looked, STEADY_LOOKED if self.total is None else min(STEADY_LOOKED, self.total))
        if looked >= MINIMUM_LOOKED and len(self._bad) > self.max_share * steady:
            raise RecordingsError(
                f"{len(self._bad)} of {looked} recordings looked at are bad, more than data.max_bad_share="
                f"{self.max_share}: {self.summary()}; mend or remove them, or raise data.max_bad_share"
            )

    def summary(self) -> str:
        """``2 truncated, 1 silent (such as a.wav, silent: …), listed in runs/x/skipped.jsonl``."""
        if not self._bad:
            return "none is bad"
        causes = Counter(error.cause for error in self._bad.values())
        counts = ", ".join(f"{count} {cause}" for cause, count in causes.most_common())
        name, error = next(iter(self._bad.items()))
        listed = f", listed in {self.path}" if self.path else ""
        return f"{counts} (such as {name}, {error}){listed}"


def append_skipped(path: Path | None, bad: Mapping[str, BadAudioError]) -> None:
    """Adds a line for each bad recording that has none."""
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
