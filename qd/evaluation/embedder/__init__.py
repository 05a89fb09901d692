"""Measures how well an embedder tells recordings apart."""
