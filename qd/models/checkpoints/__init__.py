"""Finds a model's folder by its name, and reads its tensors."""
