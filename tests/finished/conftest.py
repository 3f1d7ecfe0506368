"""What all tests of finished runs share."""

from helpers.messy import messy, own_run  # noqa: F401 (fixtures)
