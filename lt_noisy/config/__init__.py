"""Configs: choices in call form, sections and their fields, and the check of a whole config before any data is read."""
