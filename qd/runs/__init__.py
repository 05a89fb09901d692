"""Where a run works: its folder, locks, logs, devices and processes."""
