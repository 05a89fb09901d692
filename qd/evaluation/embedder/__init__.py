"""Measures how well an embedder distinguishes recordings."""
