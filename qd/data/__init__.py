"""Prompts, recordings and ratings."""
