"""Grids of config overrides, run as processes and shown as tables."""
