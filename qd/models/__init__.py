"""MusicGen and its relatives; codecs, sampling, embedders, checkpoints and merging."""
