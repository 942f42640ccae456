"""What answers cost: seconds by phase and model calls, counted where they arise."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

Phase = Literal["tokenise", "prefill", "decode", "search"]

PHASES: tuple[Phase, ...] = ("tokenise", "prefill", "decode", "search")
"""Titles to token ids; reading prompts; every later pass of a model; everything that is not a model."""


class Meter:
    """The running costs of one decoder. Who measures resets it before and reads it after.

    A phase ends when its result is on the host, so that on a GPU, whose kernels run behind the caller's back, seconds
    are booked where they are spent.

    Attributes:
        seconds: by phase.
        model_calls: forward passes of the backbone, reading prompts included.
        draft_calls: forward passes of a smaller model that drafts for it.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self.seconds: dict[Phase, float] = dict.fromkeys(PHASES, 0.0)
        self.model_calls = 0
        self.draft_calls = 0

    @contextmanager
    def phase(self, name: Phase) -> Iterator[None]:
        """Adds the time inside to a phase. Phases do not nest."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += time.perf_counter() - start
