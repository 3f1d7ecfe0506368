"""Grids of config overrides, run as processes and told as tables."""
