"""What is reported: pure functions on NumPy arrays and tensors."""
