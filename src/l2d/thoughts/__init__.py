"""Prompts -> thoughts: the Thinker contract, one file per engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from l2d.thoughts.choosing import ENGINES, Engine, Ground, check_engine, choose_engine
from l2d.thoughts.openvino_engine import OpenVinoThinker
from l2d.thoughts.torch_engine import TorchThinker
from l2d.thoughts.vllm_engine import VllmThinker

Progress = Callable[[int, int], None]
"""Called with (done, total) while a long step runs."""


class Thinker(Protocol):
    """What an engine is: token sequences in, thoughts out.

    A thought is the last-layer hidden state, after the final norm, at the last token of a prompt (arXiv 2509.11524,
    section 3). It must not depend on which other prompts are thought in the same call, beyond the engine's rounding.
    """

    @property
    def width(self) -> int:
        """Length of a thought."""
        ...

    def think(self, prompts: Sequence[NDArray[np.int32]], progress: Progress | None = None) -> NDArray[np.float32]:
        """Thoughts of prompts, in their order. Shape: (prompts, width)."""
        ...


__all__ = [
    "ENGINES",
    "Engine",
    "Ground",
    "OpenVinoThinker",
    "Progress",
    "Thinker",
    "TorchThinker",
    "VllmThinker",
    "check_engine",
    "choose_engine",
]
