"""Averages of models: sources, weights, and the folder that comes of them."""
