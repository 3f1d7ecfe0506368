"""Weights of networks that were trained elsewhere: their files, what they call each layer, and ours out again."""
