"""The one loop, and what it stands on: state, update, devices, checkpoints, metrics."""
