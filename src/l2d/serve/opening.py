"""Runs opened for serving: checked, warm, and timed once."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from l2d.errors import ConfigError
from l2d.serve.answering import Kind
from l2d.serve.arm import Arm
from l2d.serve.arms import Arms, arm_names
from l2d.serve.metrics import Metrics
from l2d.serve.settings import Settings

if TYPE_CHECKING:
    from l2d.recommender import Recommender

Notice = Callable[[str], None]

WARM_BATCHES = (1, 2, 8, 32, 1)
"""Sizes of the batches that a run is warmed up with; from their times the first estimates are made."""


def open_arms(
    paths: Sequence[Path], settings: Settings, metrics: Metrics, *, device: str, engine: str, notice: Notice
) -> Arms:
    """Opens runs.

    Args:
        paths: their folders.
        settings: of the server.
        metrics: of the server.
        device: as in `Recommender.load`.
        engine: as in `Recommender.load`.
        notice: called with lines for people.

    Raises:
        InputError: as `Recommender.load`, or a decoder that a run does not have.
    """
    arms = []
    for name, path in zip(arm_names(paths), paths, strict=True):
        load = partial(open_run, path, device=device, engine=engine, notice=notice)
        run = load(read_only=settings.read_only)
        arm = Arm(name, run, settings, metrics, partial(load, read_only=True))
        if settings.decoder is not None and settings.decoder not in arm.decoders:
            raise ConfigError(f"{path} has no such decoder", got=settings.decoder, expected=", ".join(arm.decoders))
        if settings.threads is not None:
            import torch

            torch.set_num_threads(settings.threads)
        learn_pace(arm)
        arms.append(arm)
    return Arms(arms)


def open_run(path: Path, *, read_only: bool, device: str, engine: str, notice: Notice) -> Recommender:
    """Opens a run for serving."""
    from l2d.recommender import Recommender

    return Recommender.load(path, device=device, engine=engine, notice=notice, writer=not read_only)


def learn_pace(arm: Arm) -> None:
    """Answers a few requests, so that the first client does not wait and estimates have something to go by."""
    from l2d.recommender import RecommendRequest

    arm.warm(arm.run)
    run, valid = arm.run, arm.run.dataset.splits.valid
    decoder = arm.settings.decoder or run.usual
    place = 0
    for size in WARM_BATCHES:
        histories = []
        for _ in range(min(size, arm.settings.max_batch)):
            rows = valid.history(place % len(valid)).tolist() if len(valid) else [0]
            histories.append([f"id:{run.catalog.item_ids[row]}" for row in rows])
            place += 1
        tokens = sum(arm.prompt_tokens(history) for history in histories)
        began = time.monotonic()
        run.recommend_batch([RecommendRequest(history) for history in histories], decoder=decoder)
        if place > 1:  # the first one pays for what is made when it is first needed
            for seen in (False, True):
                arm.pace.learn(Kind(decoder, seen), tokens, time.monotonic() - began)
