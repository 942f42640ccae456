"""Decoders of one run measured side by side: quality on the same users, single requests timed in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from l2d.compare import ask, rank_in_blocks, sample, timed_histories
from l2d.errors import ArtifactMismatch, ConfigError
from l2d.evaluate import Evaluation, evaluate
from l2d.interactions import Examples, SplitName
from l2d.latency import in_turn
from l2d.ranking import Decoder, Rankings, Rows
from l2d.recommender.opening import DECODERS, REMEMBERING, check_names

if TYPE_CHECKING:
    from l2d.recommender.facade import Recommender

LENGTH, SEARCHED_LENGTH = 100, 10
"""List lengths: of decoders that score every item anyway, and of those that search longer for a longer list."""


@dataclass(frozen=True)
class Row:
    """One decoder's figures.

    Args:
        evaluation: metrics, intervals, slices.
        ms_per_request: median milliseconds from history to list at batch size 1, tokenising included; None if untimed.
    """

    evaluation: Evaluation
    ms_per_request: float | None


@dataclass(frozen=True)
class Report:
    """What `evaluate` found.

    Args:
        split: `valid` or `test`.
        users: examples that were judged.
        exclude_seen: whether the items of their histories were excluded.
        rows: figures by decoder.
    """

    split: str
    users: int
    exclude_seen: bool
    rows: dict[str, Row]

    def to_json(self) -> dict[str, Any]:
        """The figures as JSON values: {"split", "users", "exclude_seen", "decoders": {NAME: {...}}}."""
        decoders = {}
        for name, row in self.rows.items():
            decoders[name] = row.evaluation.to_json()
            if row.ms_per_request is not None:
                decoders[name]["ms_per_request"] = row.ms_per_request
        return {"split": self.split, "users": self.users, "exclude_seen": self.exclude_seen, "decoders": decoders}


def measure(
    run: Recommender,
    names: Sequence[str],
    *,
    split: SplitName,
    users: int | None,
    exclude_seen: bool,
    seed: int,
    timing: bool,
    progress: Callable[[str, int, int], None],
    notice: Callable[[str], None],
) -> Report:
    """See `Recommender.evaluate`."""
    check_split(run, split, names)
    if set(names) & set(REMEMBERING) and run.run.live.exists():
        notice(f"the memory knows {len(run.histories):,} live interactions, however late they are")
    decoders = {name: run.decoder(name, progress=progress) for name in dict.fromkeys(names)}
    latent = any(decoder.needs_thoughts for decoder in decoders.values())
    everybody = run.dataset.splits[split]
    examples = everybody.take(sample(everybody, users, seed))
    requests = ask(
        examples, run.prompts, run.thinker, think=latent, exclude_seen=exclude_seen,
        progress=partial(progress, "thinking"),
    )  # fmt: skip
    counts = run.train_evidence.popularity
    rows = {}
    times = _time(run, decoders, examples, exclude_seen, seed, partial(progress, "timing")) if timing else {}
    for name, decoder in decoders.items():
        length = SEARCHED_LENGTH if DECODERS[name] == "language" else LENGTH
        rankings = rank_in_blocks(decoder, requests, min(length, len(run.catalog)), partial(progress, name))
        evaluation = evaluate(rankings, examples, run.catalog, counts, seed=seed)
        rows[name] = Row(evaluation, times.get(name))
    if len(examples) < len(everybody):
        notice(f"{len(examples)} of {len(everybody)} {split} examples, drawn with seed {seed}")
    return Report(split, len(examples), exclude_seen, rows)


def check_split(run: Recommender, split: SplitName, names: Sequence[str]) -> None:
    """Refuses a measurement that could not be made, or would be made on what was learnt.

    Args:
        run: the run.
        split: to be measured on.
        names: decoders to be measured.

    Raises:
        ArtifactMismatch: the memory takes part and holds the split's targets.
        ConfigError: not a split to measure on, or an unknown decoder.
    """
    check_names(names)
    if split not in ("valid", "test"):
        raise ConfigError("cannot evaluate on this split", got=split, expected="valid or test")
    through = run.memory.metadata["through"] if set(names) & set(REMEMBERING) else "nothing"
    if through in ("all", split):
        raise ArtifactMismatch(
            f"the memory of {run.path} holds the {split} split's targets",
            got=f"a memory through {through}",
            expected="one that ends before the split",
            cure=f"run `l2d memory build {run.path} --through train --overwrite`",
        )
    live = run.live_targets(split) if set(names) & set(REMEMBERING) else 0
    if live:
        raise ArtifactMismatch(
            f"targets of the {split} split came in live",
            got=f"{live} of them in the memory of {run.path}",
            expected="a memory that does not know them",
            cure="evaluate a copy of the run from before, or go back to it with `l2d memory roll-back`",
        )


def _time(
    run: Recommender,
    decoders: dict[str, Decoder],
    examples: Examples,
    exclude_seen: bool,
    seed: int,
    progress: Callable[[int, int], None],
) -> dict[str, float]:
    """Median milliseconds per single request, the same users for every decoder, in turn."""

    def answer(decoder: Decoder, history: Rows) -> Rankings:
        excluded = [history] if exclude_seen else None
        return decoder.rank(run.requests([history], think=decoder.needs_thoughts, exclude=excluded), SEARCHED_LENGTH)

    calls = {name: partial(answer, decoder) for name, decoder in decoders.items()}
    times = in_turn(calls, timed_histories(examples, seed), progress=progress)
    return {name: float(np.median(found)) for name, found in times.items()}
