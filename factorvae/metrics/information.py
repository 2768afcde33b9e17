"""Entropies and mutual information, in nats, of labels and of codes."""

import numpy as np
from scipy.special import digamma, xlogy

from factorvae.metrics.inputs import standardize, whole_number


def equal_width_bins(codes: np.ndarray, bins: int = 20) -> np.ndarray:
    """Each latent cut into `bins` of equal width between its extremes: int64 [N, D], from 0.

    A value on an edge falls into the bin above it, the largest into the last one, as in
    disentanglement_lib's histogram discretiser. A constant latent falls into one bin.
    """
    bins = whole_number("bins", bins, 2)
    columns = []
    for column in codes.T:
        # numpy's histogram_bin_edges, but for values too near one another for so many edges.
        edges = np.linspace(column.min(), column.max(), bins + 1)
        columns.append(np.searchsorted(edges[1:-1], column, side="right"))
    return np.stack(columns, axis=1)


def entropy(labels: np.ndarray) -> np.ndarray:
    """Empirical entropy of each column of `labels` [N, F]: [F], in nats."""
    counts = [np.unique(column, return_counts=True)[1] for column in labels.T]
    return np.array([-xlogy(n / n.sum(), n / n.sum()).sum() for n in counts])


def mutual_information(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Of every column of `first` [N, A] with every column of `second` [N, B]: [A, B], in nats.

    Both are whole numbers from 0. The counts of each pair are one `bincount` of the joint index.
    """
    sizes_1, sizes_2 = first.max(axis=0) + 1, second.max(axis=0) + 1
    result = np.empty((first.shape[1], second.shape[1]))
    for i, j in np.ndindex(result.shape):
        rows, columns = sizes_1[i], sizes_2[j]
        joint = np.bincount(first[:, i] * columns + second[:, j], minlength=rows * columns)
        joint = joint.reshape(rows, columns).astype(np.float64)
        expected = np.outer(joint.sum(axis=1), joint.sum(axis=0)) / len(first)
        # Ratios of counts are exact, so that a constant column gives a mutual information of 0.
        ratio = np.divide(joint, expected, out=np.ones_like(joint), where=joint > 0)
        result[i, j] = max(xlogy(joint, ratio).sum() / len(first), 0.0)
    return result


def mutual_information_knn(
    codes: np.ndarray, labels: np.ndarray, neighbors: int = 10, seed: int = 0
) -> np.ndarray:
    """Of each continuous latent with each discrete factor, without bins: [D, F], in nats.

    The nearest-neighbour estimate of Ross 2014 ("Mutual information between discrete and
    continuous data sets"): with N points, N_x of them in a point's class, and m points closer
    than its k-th neighbour within the class,

        I = psi(N) + mean psi(k) - mean psi(N_x) - mean psi(m).

    Equal values are told apart by noise of 1e-10 of the latent's scale, and a class of one point
    is left out, as in scikit-learn's `mutual_info_classif`, which this agrees with; one dimension
    needs sorting only, no tree.
    """
    neighbors = whole_number("neighbors", neighbors, 1)
    varying = np.ptp(codes, axis=0) > 0  # of a constant latent there would be the noise alone
    # To unit variance, beside which the noise is small: all it does is to part equal values.
    (codes,) = standardize(codes)
    codes = codes + 1e-10 * np.random.default_rng(whole_number("seed", seed, 0)).standard_normal(
        codes.shape
    )
    columns = [_knn_information(codes, column, neighbors) for column in labels.T]
    return np.stack(columns, axis=1) * varying[:, None]


def _knn_information(codes: np.ndarray, labels: np.ndarray, neighbors: int) -> np.ndarray:
    """`mutual_information_knn` with one factor, `labels` [N]: [D]."""
    counts = np.bincount(labels)
    kept = counts[labels] > 1
    codes, labels = codes[kept], labels[kept]
    if len(codes) == 0:
        return np.zeros(codes.shape[1])
    low, high = np.empty_like(codes), np.empty_like(codes)
    k = np.minimum(neighbors, counts[labels] - 1)  # [N]
    for label in np.flatnonzero(counts > 1):
        members = np.flatnonzero(labels == label)
        bounds = _neighbor_bounds(codes[members], min(neighbors, len(members) - 1))
        low[members], high[members] = bounds
    closer = np.empty_like(codes)
    for d in range(codes.shape[1]):
        ordered = np.sort(codes[:, d])
        above = np.searchsorted(ordered, high[:, d], side="left")
        closer[:, d] = above - np.searchsorted(ordered, low[:, d], side="right")
    estimate = digamma(len(codes)) + np.mean(digamma(k)) - np.mean(digamma(counts[labels]))
    return np.maximum(estimate - digamma(closer).mean(axis=0), 0.0)


def _neighbor_bounds(codes: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """For each value, the ends of the open interval around it that its k-th neighbour bounds.

    Neighbours are those of the same column of `codes` [n, D]. Sorted, the k nearest of a value lie
    in one of the k + 1 windows of k + 1 values around it. The neighbour's own value is one end:
    value - (value - neighbour) would often miss it by rounding.
    """
    order = np.argsort(codes, axis=0)
    ordered = np.take_along_axis(codes, order, axis=0)
    edge = np.full((k, codes.shape[1]), np.inf)
    padded = np.concatenate([-edge, ordered, edge])  # [n + 2k, D]
    low, high = np.full_like(codes, -np.inf), np.full_like(codes, np.inf)
    nearest = np.full_like(codes, np.inf)
    for start in range(k + 1):
        first, last = padded[start : start + len(codes)], padded[start + k : start + k + len(codes)]
        below, above = ordered - first, last - ordered
        better = np.maximum(below, above) < nearest
        nearest = np.where(better, np.maximum(below, above), nearest)
        low = np.where(better, np.where(below >= above, first, ordered - above), low)
        high = np.where(better, np.where(above >= below, last, ordered + below), high)
    ends = np.empty_like(codes), np.empty_like(codes)
    np.put_along_axis(ends[0], order, low, axis=0)
    np.put_along_axis(ends[1], order, high, axis=0)
    return ends
