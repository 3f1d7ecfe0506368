"""Trained networks for other programs: weights, graphs, and a card that says what they are."""
