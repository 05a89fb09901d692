"""The paper's experiments, made again: the runs, what is claimed of them, and what came out."""
