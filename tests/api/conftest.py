"""What all tests of the Python calls share."""

from helpers.messy import messy, own_run  # noqa: F401 (fixtures)
