"""lt_noisy: image classifiers from data that is long-tailed and wrongly labelled.

import lt_noisy as lt

run = lt.fit("photos")                  # a folder with one sub-folder of images per class
run.suspects()                          # the labels that are probably wrong
run.predict(["new/1.jpg"])              # classes of other pictures
lt.FeatureClassifier().fit(X, y)        # the robust losses as a scikit-learn classifier on features
lt.losses.gce(logits, labels, q=0.7)    # the losses in a JAX loop of one's own
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lt_noisy import losses, objectives
    from lt_noisy.api.feature_classifier import FeatureClassifier
    from lt_noisy.api.run import Run, fit, load

__version__ = "0.1.0"
__all__ = ["FeatureClassifier", "Run", "fit", "load", "losses", "objectives"]

# Loaded when they are asked for: the program starts without them.
_PLACES = {
    "FeatureClassifier": "lt_noisy.api.feature_classifier",
    "Run": "lt_noisy.api.run",
    "fit": "lt_noisy.api.run",
    "load": "lt_noisy.api.run",
}


def __getattr__(name: str) -> Any:
    if name in _PLACES:
        return getattr(importlib.import_module(_PLACES[name]), name)
    if name in __all__:
        return importlib.import_module(f"lt_noisy.{name}")
    raise AttributeError(f"module 'lt_noisy' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
