"""Judges of generated audio, used for evaluation only."""
