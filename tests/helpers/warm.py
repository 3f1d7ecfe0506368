"""What every run works out after its imports, worked out once: by the server that forks them (`forked`)."""

import gc

import sklearn.datasets  # noqa: F401 (the digits)

from lt_noisy import revision

for module in revision.MODULES:
    revision._imports(module)
revision.code()
gc.freeze()  # no child goes through it again
