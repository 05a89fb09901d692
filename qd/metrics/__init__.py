"""Reported numbers: pure functions on NumPy arrays and tensors."""
