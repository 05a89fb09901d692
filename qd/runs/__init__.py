"""The surroundings of a run: its folder, locks, logs, devices and processes."""
