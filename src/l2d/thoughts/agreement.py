"""How near an engine's thoughts are to the plain model's."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def least_cosine(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Smallest cosine between thoughts of the same prompts; -1 where one is not finite or all zeros.

    Args:
        found: Shape: (prompts, width).
        expected: Shape: (prompts, width).
    """
    lengths = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = (found * expected).sum(axis=1) / lengths
    return float(cosines.min()) if np.isfinite(cosines).all() else -1.0
