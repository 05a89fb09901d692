"""The memory, time and disk space that a run needs."""
