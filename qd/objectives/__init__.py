"""Losses: pure PyTorch functions."""
