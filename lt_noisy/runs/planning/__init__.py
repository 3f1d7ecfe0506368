"""A plan before the bill: what a config would take on devices that nobody has to own. Nothing is trained."""
