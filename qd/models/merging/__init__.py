"""Weighted sums of checkpoints, on disk and in memory."""
