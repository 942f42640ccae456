"""How near an engine's thoughts are to the plain model's."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Agreement(NamedTuple):
    """Of two engines on the same prompts, the worst prompt counting.

    Args:
        cosine: least cosine of two thoughts; -1 where one is not finite or all zeros.
        stretch: largest relative difference of their lengths. Cosines do not see it, and Euclidean distances do.
    """

    cosine: float
    stretch: float

    def within(self, cosine: float, stretch: float) -> bool:
        """Whether it is as good as that."""
        return self.cosine >= cosine and self.stretch <= stretch

    def __str__(self) -> str:
        return f"cosine {self.cosine:.4f}, lengths within {self.stretch:.1%}"


def agreement(found: NDArray[np.float32], expected: NDArray[np.float32]) -> Agreement:
    """Compares thoughts with the plain model's. Shapes: (prompts, width)."""
    lengths, wanted = np.linalg.norm(found, axis=1), np.linalg.norm(expected, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = (found * expected).sum(axis=1) / (lengths * wanted)
        stretch = np.abs(lengths / wanted - 1)
    if not np.isfinite(cosines).all():
        return Agreement(-1.0, 1.0)
    return Agreement(float(cosines.min()), float(stretch.max()))
