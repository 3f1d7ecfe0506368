"""What the tests of the objectives share: a spec for every table entry, with heads that compile and run in no time."""

from helpers.step_cases import entry

from lt_noisy.objectives import OBJECTIVES


def small(name: str, **arguments) -> str:
    """The spec of a table entry with these arguments and otherwise small sizes."""
    return entry(OBJECTIVES, name, **{"hidden": 16, "size": 8, "queue": 40, **arguments})


def everything() -> list[str]:
    """A spec for each table entry, and variants with code of their own."""
    return [*map(small, OBJECTIVES), small("moco", symmetric=False), small("rotation", every=True)]
