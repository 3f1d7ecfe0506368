"""Trains as a config file says: `python main.py --config=configs/digits_lt_noise.py [--config.x=...]`."""

import sys

from lt_noisy.runs.cli import main, start

__all__ = ["main"]

if __name__ == "__main__":
    sys.exit(start())
