"""What a network is worth, on the host: arrays in, JSON-ready dicts out."""
