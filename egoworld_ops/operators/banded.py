"""A symmetric matrix whose elements link the n values of a frame with each other, and each value with itself one and two frames later."""

from __future__ import annotations

import numpy as np
from scipy.linalg import solveh_banded


class Banded:
    """The matrix over (T, n) values, frame by frame.

    Args:
        blocks: (T, n, n) symmetric: within the frames.
        links: (3, T, n): what is added to the diagonal, and what links a value with itself 1 and 2 frames later.
    """

    def __init__(self, blocks: np.ndarray, links: np.ndarray) -> None:
        n_frames, n = links.shape[1:]
        upper = np.zeros((2 * n + 1, n_frames, n))
        for k in range(n):
            upper[2 * n - k, :, k:] = np.diagonal(blocks, k, 1, 2)
        upper[2 * n] += links[0]
        for k in (1, 2):
            upper[(2 - k) * n, k:] += links[k, :-k]
        self._shape = (n_frames, n)
        self._upper = upper.reshape(2 * n + 1, -1)
        """As LAPACK has it: element (i, j) of the matrix at [2 n + i - j, j]."""
        self._filled = [k for k in (*range(n + 1), 2 * n) if k < n_frames * n]
        """How far from the diagonal there are elements."""

    def __matmul__(self, values: np.ndarray) -> np.ndarray:
        """(T, n) product with (T, n) values."""
        flat = values.ravel()
        product = self._upper[-1] * flat
        for k in self._filled[1:]:
            elements = self._upper[-1 - k, k:]
            product[:-k] += elements * flat[k:]
            product[k:] += elements * flat[:-k]
        return product.reshape(self._shape)

    def solve(self, right: np.ndarray, free: np.ndarray) -> np.ndarray:
        """(T, n) values whose product is `right` where they are `free` (T, n) bool, with 0 for all others.

        Raises:
            numpy.linalg.LinAlgError: the matrix is not positive definite, or not finite.
        """
        kept, mask = self._upper.copy(), free.ravel()
        for k in self._filled[1:]:
            kept[-1 - k, k:] *= mask[k:] & mask[:-k]
        kept[-1] = np.where(mask, kept[-1], 1.0)
        solved: np.ndarray = solveh_banded(kept, np.where(mask, right.ravel(), 0.0), check_finite=False)
        return solved.reshape(self._shape)
