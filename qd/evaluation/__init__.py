"""Measuring policies: points, protocols, figures."""
