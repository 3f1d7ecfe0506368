"""The training images that a suspect is to be compared with: the nearest of its class, and of the suggested one."""

import numpy as np
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize


def nearest_of_class(
    features: np.ndarray, labels: np.ndarray, trusted: np.ndarray, queries: np.ndarray, classes: np.ndarray, k: int
) -> np.ndarray:
    """For each query the `k` nearest trusted rows of a class by cosine similarity, nearest first: int64 [Q, k].

    -1 stands where a class has fewer; no row is its own neighbour.

    Args:
      features: float [N, D].
      labels: int [N].
      trusted: bool [N], rows whose label nobody doubts.
      queries: int [Q], rows.
      classes: int [Q], of which class each query's neighbours are.
    """
    units = normalize(np.asarray(features, np.float32))
    found = np.full((len(queries), k), -1, np.int64)
    for label in np.unique(classes):
        members, asked = np.flatnonzero(trusted & (labels == label)), np.flatnonzero(classes == label)
        if not len(members):
            continue
        most = min(k + 1, len(members))  # one more, for the query itself
        index = NearestNeighbors(n_neighbors=most, algorithm="brute").fit(units[members])
        rows = members[index.kneighbors(units[queries[asked]], return_distance=False)]
        own = rows == queries[asked, None]
        order = np.argsort(own, axis=1, kind="stable")  # itself to the end
        rows = np.where(np.take_along_axis(own, order, 1), -1, np.take_along_axis(rows, order, 1))[:, :k]
        found[asked, : rows.shape[1]] = rows
    return found
