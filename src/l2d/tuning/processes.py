"""One tuning run in several processes, as `torchrun` and `accelerate launch` start them: one writes, all compute."""

from __future__ import annotations

import os

import torch
from accelerate import PartialState


def processes() -> int:
    """How many there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this process is the one that writes and talks."""
    return int(os.environ.get("RANK", "0")) == 0


def wait_for_all() -> None:
    """Returns when every process has come this far."""
    if processes() > 1:
        PartialState(cpu=not torch.cuda.is_available()).wait_for_everyone()
