"""One file for each `qd <command>`: what it does."""
