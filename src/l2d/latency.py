"""Single requests timed in turn: every contestant answers the same inputs under the same conditions."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Input = TypeVar("Input")


def in_turn(
    calls: Mapping[str, Callable[[Input], object]],
    inputs: Sequence[Input],
    *,
    warmup: int = 5,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Milliseconds of each call on each input, in the order A B C, A B C, ...

    A machine's speed drifts over minutes; taken in turn, the drift meets all contestants alike, so that ratios hold
    where absolute times do not.

    Args:
        calls: contestants by name.
        inputs: what each of them is given, one at a time.
        warmup: untimed rounds before the first.
        progress: called with rounds (done, total).

    Returns:
        By name, one time per input. Shape: (inputs,).
    """
    times = {name: np.empty(len(inputs)) for name in calls}
    for place in range(-min(warmup, len(inputs)), len(inputs)):
        for name, call in calls.items():
            start = time.perf_counter()
            call(inputs[place])
            if place >= 0:
                times[name][place] = (time.perf_counter() - start) * 1000
        if progress is not None and place >= 0:
            progress(place + 1, len(inputs))
    return times
