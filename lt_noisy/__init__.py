"""lt_noisy: image classifiers from data that is long-tailed and wrongly labelled."""

__version__ = "0.1.0"
