"""Measures policies and embedders, and fills results files."""
