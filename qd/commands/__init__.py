"""One file for each `qd <command>`."""
