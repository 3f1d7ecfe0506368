"""Training on mixtures of examples."""
