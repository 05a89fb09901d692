"""Scorers of text adherence and of preference."""
