"""Decoders of one run measured side by side: quality on the same users, single requests timed in turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from l2d.errors import ArtifactMismatch, ConfigError
from l2d.evaluate import Evaluation, evaluate
from l2d.interactions import Examples, SplitName
from l2d.latency import in_turn
from l2d.ranking import Decoder, Rankings, Requests

if TYPE_CHECKING:
    from l2d.recommender.facade import Recommender

LENGTH, SEARCHED_LENGTH = 100, 10
"""List lengths: of decoders that score every item anyway, and of those that search longer for a longer list."""

BLOCK = 256
"""Requests ranked together; progress moves once a block."""

TIMED = 100
"""Single requests that are timed."""


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
        rows: figures by decoder.
    """

    split: str
    users: int
    rows: dict[str, Row]

    def to_json(self) -> dict[str, Any]:
        """The figures as JSON values: {"split", "users", "decoders": {NAME: {...}}}."""
        decoders = {}
        for name, row in self.rows.items():
            decoders[name] = row.evaluation.to_json()
            if row.ms_per_request is not None:
                decoders[name]["ms_per_request"] = row.ms_per_request
        return {"split": self.split, "users": self.users, "decoders": decoders}


def measure(
    run: Recommender,
    names: Sequence[str],
    *,
    split: SplitName,
    users: int | None,
    seed: int,
    timing: bool,
    progress: Callable[[str, int, int], None],
    notice: Callable[[str], None],
) -> Report:
    """See `Recommender.evaluate`."""
    if split not in ("valid", "test"):
        raise ConfigError("cannot evaluate on this split", got=split, expected="valid or test")
    decoders = {name: run.decoder(name) for name in dict.fromkeys(names)}
    latent = any(decoder.needs_thoughts for decoder in decoders.values())
    if latent:
        _refuse_known_targets(run, split)
    examples = _sample(run.dataset.splits[split], users, seed)
    requests = _think(run, examples, partial(progress, "thinking")) if latent else Requests(examples.histories())
    counts = run.evidence.popularity
    rows = {}
    times = _time(run, decoders, examples, seed, partial(progress, "timing")) if timing else {}
    for name, decoder in decoders.items():
        length = SEARCHED_LENGTH if name == "beam" else LENGTH
        rankings = _rank(decoder, requests, min(length, len(run.catalog)), partial(progress, name))
        evaluation = evaluate(rankings, examples, run.catalog, counts, seed=seed)
        rows[name] = Row(evaluation, times.get(name))
    if len(examples) < len(run.dataset.splits[split]):
        notice(f"{len(examples)} of {len(run.dataset.splits[split])} {split} examples, drawn with seed {seed}")
    return Report(split, len(examples), rows)


def _refuse_known_targets(run: Recommender, split: SplitName) -> None:
    through = run.memory.metadata["through"]
    if through in ("all", split):
        raise ArtifactMismatch(
            f"the memory of {run.path} holds the {split} split's targets",
            got=f"a memory through {through}",
            expected="one that ends before the split",
            cure=f"run `l2d memory build {run.path} --through train --overwrite`",
        )


def _sample(examples: Examples, users: int | None, seed: int) -> Examples:
    if users is None or users >= len(examples):
        return examples
    if users < 1:
        raise ConfigError("too few users", got=users, expected="at least 1, or all")
    chosen = np.random.default_rng([seed, 11]).choice(len(examples), users, replace=False)
    return examples.take(np.sort(chosen))


def _think(run: Recommender, examples: Examples, progress: Callable[[int, int], None]) -> Requests:
    histories = examples.histories()
    thoughts = run.thinker.think([run.prompts.prompt(history) for history in histories], progress)
    return Requests(histories, thoughts)


def _rank(decoder: Decoder, requests: Requests, k: int, progress: Callable[[int, int], None]) -> Rankings:
    parts = []
    for start in range(0, len(requests), BLOCK):
        stop = min(start + BLOCK, len(requests))
        parts.append(decoder.rank(requests.take(range(start, stop)), k))
        progress(stop, len(requests))
    return Rankings.concatenate(parts)


def _time(
    run: Recommender, decoders: dict[str, Decoder], examples: Examples, seed: int, progress: Callable[[int, int], None]
) -> dict[str, float]:
    """Median milliseconds per single request, the same users for every decoder, in turn."""
    drawn = np.random.default_rng([seed, 13]).permutation(len(examples))[:TIMED]
    chosen = [examples.history(int(drawn[place % len(drawn)])) for place in range(TIMED)]

    def answer(decoder: Decoder, history: NDArray[np.int32]) -> Rankings:
        return decoder.rank(run.requests([history], think=decoder.needs_thoughts), SEARCHED_LENGTH)

    calls = {name: partial(answer, decoder) for name, decoder in decoders.items()}
    return {name: float(np.median(times)) for name, times in in_turn(calls, chosen, progress=progress).items()}
