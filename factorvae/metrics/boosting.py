"""Gradient-boosted trees for several factors at once, as scikit-learn grows them but much faster.

The algorithm is that of scikit-learn's GradientBoostingClassifier at its defaults (Friedman 2001,
"Greedy function approximation"): stages of one depth-3 regression tree per class, grown on the
gradient of the log loss by the largest drop of squared error over every threshold, leaves set by
one Newton step, rate .1; importances are the drops. Only the search is arranged differently:

- All trees of a stage, over all classes of all factors, grow together, level by level.
- Each latent is cut, once, into bins of some sixty points. The sums of gradients in the bins of a
  node are one product of a sparse matrix of ones [latent and bin, point] with the gradients
  [point, tree], and a right child's sums are its parent's less its sibling's. They give the drop
  of every threshold between bins, and with the sum of the gradients' distances from the node's
  mean a bound on the drops within.
- Only the few bins whose bound exceeds the best drop so far are searched, point by point. So the
  split is still the best of all thresholds.

Splitting between bins only would be faster, but another metric: on a good code D and C came out
.009 lower with 256 bins of equal count, and .015 and .017 lower with 1,024.

Shapes: N training and T held-out points, D latents, B bins, F factors, and C trees a stage: one
per class of each factor, or one for a factor of two classes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array
from scipy.special import expit, softmax

from factorvae.errors import UserError

DEPTH = 3
LEARNING_RATE = 0.1
# Values no further apart are one to scikit-learn's trees.
SAME_VALUE = 1e-7
BIN_POINTS = 64
# Bins searched at once, which bounds the memory.
SEARCHED_BINS = 2**13


@dataclass(frozen=True)
class Boosted:
    """Importances [D, F], each factor's adding to 1 (or to 0 where nothing split), and the
    predicted factors [N, F] and [T, F]."""

    importance: np.ndarray
    predicted: np.ndarray
    predicted_test: np.ndarray


def boost(
    codes: np.ndarray,
    factors: np.ndarray,
    codes_test: np.ndarray,
    *,
    num_stages: int = 100,
    generator: np.random.Generator,
    on_stage: Callable[[], object] = lambda: None,
) -> Boosted:
    """Fit factors int [N, F], each of two values or more, from codes [N, D]; predict both sets.

    `generator` settles ties between latents that split equally well (duplicates), as
    scikit-learn does by shuffling them. `on_stage` is called after each stage.
    """
    if num_stages < 1:
        raise UserError(f"boosting needs a stage or more, not {num_stages}")
    count = len(codes)
    heads = [_Head(factor) for factor in factors.T]
    target, shrink = np.hstack([h.target for h in heads]), np.hstack([h.shrink for h in heads])
    raw = np.tile(np.hstack([h.start for h in heads]), (count + len(codes_test), 1))  # [N + T, C]
    parts = np.cumsum([h.num_trees for h in heads])[:-1]  # where one head's trees end
    gains = np.zeros((codes.shape[1], raw.shape[1]))  # [D, C]
    points = np.concatenate([codes, codes_test]).astype(np.float32)  # [N + T, D]
    grower = _Grower(points, count, generator)
    for _ in range(num_stages):
        each = zip(heads, np.split(raw[:count], parts, axis=1), strict=True)
        residual = target - np.hstack([head.probability(part) for head, part in each])  # [N, C]
        leaf = grower.grow(residual, gains)  # [N + T, C]
        # One Newton step: the gradient y - p over the curvature p (1 - p).
        curvature = np.abs(residual) * (1.0 - np.abs(residual))
        step = shrink * _leaf_sums(leaf[:count], residual)  # [leaves, C]
        step /= np.maximum(_leaf_sums(leaf[:count], curvature), 1e-150)
        raw += LEARNING_RATE * np.take_along_axis(step, leaf, axis=0)
        on_stage()
    predicted = [h.predict(part) for h, part in zip(heads, np.split(raw, parts, 1), strict=True)]
    predicted = np.stack(predicted, axis=1)  # [N + T, F]
    importance = np.stack([part.sum(axis=1) for part in np.split(gains, parts, 1)], axis=1)
    total = importance.sum(axis=0)
    importance /= np.where(total > 0, total, 1.0)
    return Boosted(importance, predicted[:count], predicted[count:])


class _Head:
    """The log loss of one factor: one output per class, or one in all for two classes."""

    def __init__(self, factor: np.ndarray):
        self.classes, labels, counts = np.unique(factor, return_inverse=True, return_counts=True)
        one_hot = np.eye(len(counts))[labels]
        log_prior = np.log(counts / counts.sum())
        self.binary = len(counts) == 2
        self.target = one_hot[:, 1:] if self.binary else one_hot
        self.start = np.diff(log_prior) if self.binary else log_prior
        self.num_trees = len(self.start)
        # Friedman's (K - 1) / K of the multinomial step.
        self.shrink = np.full(self.num_trees, 1.0 if self.binary else 1 - 1 / len(counts))

    def probability(self, raw: np.ndarray) -> np.ndarray:
        return expit(raw) if self.binary else softmax(raw, axis=1)

    def predict(self, raw: np.ndarray) -> np.ndarray:
        best = (raw[:, 0] >= 0).astype(int) if self.binary else raw.argmax(axis=1)
        return self.classes[best]


class _Grower:
    """Grows a stage's trees on the first `count` of `points` [N + T, D]; all points get a leaf."""

    def __init__(self, points: np.ndarray, count: int, generator: np.random.Generator):
        self.points, self.count, self.generator = points, count, generator
        order = np.argsort(points[:count], axis=0, kind="stable").T  # [D, N]
        values = np.take_along_axis(points[:count].T, order, axis=1)
        # Whether a threshold may follow each point of the sorted latents.
        self.apart = np.diff(values, axis=1, append=np.inf) > SAME_VALUE  # [D, N]
        first = np.concatenate([np.ones_like(self.apart[:, :1]), self.apart[:, :-1]], axis=1)
        group_start = np.maximum.accumulate(np.where(first, np.arange(count), 0), axis=1)
        # A bin starts where equal values start, at every BIN_POINTS points or later.
        bins = group_start // BIN_POINTS  # [D, N]
        self.shape = len(bins), int(bins.max()) + 1
        cells = (bins + self.shape[1] * np.arange(self.shape[0])[:, None]).ravel()
        # Row by row, the matrix's column indices are the points of a bin in their order.
        starts = np.searchsorted(cells, np.arange(self.shape[0] * self.shape[1] + 1))
        entries = np.ones(cells.size), order.ravel(), starts
        self.members = csr_array(entries, shape=(len(starts) - 1, count))
        self.last_value = np.pad(values.ravel(), (1, 0))[starts[1:]].reshape(self.shape)  # [D, B]
        several = np.add.reduceat(np.append(first.ravel(), 0), starts[:-1]) > 1
        self.divisible = (several & (np.diff(starts) > 1)).reshape(self.shape)  # [D, B]

    def grow(self, residual: np.ndarray, gains: np.ndarray) -> np.ndarray:
        """The leaf of each point in each tree, int8 [N + T, C]; drops are added to `gains`."""
        trees = np.arange(residual.shape[1])
        node = np.zeros((len(self.points), len(trees)), dtype=np.int8)
        everywhere = np.ones_like(residual)
        bins = [np.stack([self._bin_sums(residual), self._bin_sums(everywhere)])]
        for level in range(DEPTH):
            child, below = 2 * node, []
            for index, sums in enumerate(bins):
                here = node == index  # [N + T, C]
                latent, low, drop = self._best_split(sums, residual, here[: self.count])
                gains[latent, trees] += drop
                right = self._goes_right(here, latent, np.where(drop > 0, low, np.inf))
                child += right
                if level < DEPTH - 1:
                    left = (here & ~right)[: self.count].astype(np.float64)
                    left_sums = np.stack([self._bin_sums(left * residual), self._bin_sums(left)])
                    below += [left_sums, sums - left_sums]
            node, bins = child, below
        return node

    def _bin_sums(self, values: np.ndarray) -> np.ndarray:
        """Values [N, C] added up in each bin: [D, B, C]."""
        return (self.members @ values).reshape(*self.shape, -1)

    def _best_split(
        self, sums: np.ndarray, residual: np.ndarray, inside: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """In each tree's node, the latent of the best split, the last value to its left, and the
        drop of squared error, 0 where nothing can be split: [C] each.

        `sums` [2, D, B, C]: in each bin, of the node's points `inside` [N, C], the residuals and
        their number. With residuals centred in the node, of whose n points the l on the left add
        up to s, the drop is s^2 n / (l (n - l)).
        """
        total, count = sums[:, 0].sum(axis=1)  # [C]
        centre = total / np.maximum(count, 1)
        number = sums[1]
        in_bin = sums[0] - number * centre  # [D, B, C]
        after, left = in_bin.cumsum(axis=1), number.cumsum(axis=1)
        drops = _drop(after, left, count)
        best = drops.max(axis=1)  # [D, C]
        low = np.take_along_axis(self.last_value, drops.argmax(axis=1), axis=1)  # [D, C]

        # Within a bin, |s| exceeds its values at both ends by no more than the bin's residuals of
        # the sign that is outweighed add up to, and l is between its values there. A threshold
        # within takes two points of the node.
        centred = (residual - centre) * inside  # [N, C]
        before, outside = after - in_bin, left - number
        outweighed = (self._bin_sums(np.abs(centred)) - np.abs(in_bin)) / 2
        most = np.maximum(np.abs(before), np.abs(after)) + outweighed
        bound = np.maximum(_drop(most, outside + 1, count), _drop(most, left - 1, count))
        possible = (number > 1) & self.divisible[..., None]
        found = np.argwhere(possible & (bound > best.max(axis=0)))  # [M, 3]: latent, bin, tree
        for some in np.split(found, range(SEARCHED_BINS, len(found), SEARCHED_BINS)):
            start = before[tuple(some.T)], outside[tuple(some.T)]
            self._search(some, start, count, centred, inside, best, low)

        tied = best >= best.max(axis=0) * (1 - 1e-10)
        latent = np.where(tied, self.generator.random(best.shape), -1.0).argmax(axis=0)
        trees = np.arange(len(count))
        return latent, low[latent, trees], best[latent, trees]

    def _search(
        self,
        found: np.ndarray,
        start: tuple[np.ndarray, np.ndarray],
        count: np.ndarray,
        centred: np.ndarray,
        inside: np.ndarray,
        best: np.ndarray,
        low: np.ndarray,
    ) -> None:
        """Try every threshold within the bins `found` [M, 3] (latent, bin, tree). Where a drop is
        the largest of its latent, put it into `best` [D, C] and the value it follows into `low`.

        `start`: the sum and the number of the node's points before each bin [M].
        """
        cell = found[:, 0] * self.shape[1] + found[:, 1]
        first, sizes = self.members.indptr[cell], np.diff(self.members.indptr)[cell]
        which = np.repeat(np.arange(len(found)), sizes)  # the bin of each point visited, [V]
        head = np.cumsum(sizes) - sizes  # the first visit of each bin, [M]
        place = np.arange(len(which)) + (first - head)[which]  # among the sorted latents
        point, latent, tree = self.members.indices[place], found[which, 0], found[which, 2]

        def running(values: np.ndarray, before: np.ndarray) -> np.ndarray:
            """Running sums of values [V] that start anew from `before` [M] in each bin."""
            total = np.cumsum(values)
            return total + (before - total[head] + values[head])[which]

        pull = running(centred[point, tree], start[0])
        left = running(inside[point, tree].astype(np.float64), start[1])
        drop = np.where(self.apart.ravel()[place], _drop(pull, left, count[tree]), 0.0)
        target = latent * best.shape[1] + tree
        np.maximum.at(best.ravel(), target, drop)
        better = (drop > 0) & (drop == best.ravel()[target])
        low.ravel()[target[better]] = self.points[point[better], latent[better]]

    def _goes_right(self, here: np.ndarray, latent: np.ndarray, low: np.ndarray) -> np.ndarray:
        """Mask [N + T, C] of the node's points beyond its threshold: halfway from `low` [C], the
        last value to its left, to the node's next. `here` [N + T, C] is the node, `latent` [C]."""
        values = self.points[:, latent]  # [N + T, C]
        beyond = here[: self.count] & (values[: self.count] > low)
        high = np.where(beyond, values[: self.count], np.inf).min(axis=0)
        middle = 0.5 * low + 0.5 * high
        return here & (values > np.where(middle < high, middle, low))


def _drop(pull: np.ndarray, left: np.ndarray, count: np.ndarray) -> np.ndarray:
    """pull^2 count / (left (count - left)), and 0 where all points are on one side."""
    spread = left * (count - left)
    return np.divide(pull**2 * count, spread, out=np.zeros_like(pull), where=spread > 0.5)


def _leaf_sums(leaf: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Values [N, C] added up by leaf [N, C]: [leaves, C]."""
    num_trees = values.shape[1]
    cell = leaf.astype(np.int64) * num_trees + np.arange(num_trees)
    sums = np.bincount(cell.ravel(), values.ravel(), 2**DEPTH * num_trees)
    return sums.reshape(-1, num_trees)
