"""Encoders and heads (Flax Linen)."""
