"""Histories put to decoders: who is asked, in what blocks, and what one answer costs, phase by phase."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from l2d.costs import Meter, Phase
from l2d.errors import ConfigError
from l2d.interactions import Examples
from l2d.prompts import Prompts
from l2d.ranking import Decoder, Rankings, Requests, Rows
from l2d.thoughts import Thinker

BLOCK = 256
"""Requests ranked together; progress moves once a block."""

TIMED = 100
"""Single requests that are timed."""

Progress = Callable[[int, int], None]


def sample(examples: Examples, users: int | None, seed: int) -> NDArray[np.int64]:
    """Which examples are judged: increasing places, all for None or where there are no more than `users`.

    Raises:
        ConfigError: users below 1.
    """
    if users is not None and users < 1:
        raise ConfigError("too few users", got=users, expected="at least 1, or all")
    if users is None or users >= len(examples):
        return np.arange(len(examples))
    return np.sort(np.random.default_rng([seed, 11]).choice(len(examples), users, replace=False))


def timed_histories(examples: Examples, seed: int, count: int = TIMED) -> list[Rows]:
    """The histories of single requests to time: different users as far as there are enough, in random order.

    Raises:
        ConfigError: there are no examples.
    """
    if not len(examples):
        raise ConfigError("there are no requests to time", got=0, expected="at least 1 example")
    drawn = np.random.default_rng([seed, 13]).permutation(len(examples))[:count]
    return [examples.history(int(drawn[place % len(drawn)])) for place in range(count)]


def ask(
    examples: Examples,
    prompts: Prompts,
    thinker: Thinker,
    *,
    think: bool,
    exclude_seen: bool = False,
    progress: Progress | None = None,
) -> Requests:
    """The examples as requests, with thoughts where somebody needs them; filtered by nothing but `exclude_seen`."""
    histories = examples.histories()
    thoughts = thinker.think([prompts.prompt(history) for history in histories], progress) if think else None
    return _requests(histories, thoughts, exclude_seen)


def _requests(histories: Sequence[Rows], thoughts: NDArray[np.float32] | None, exclude_seen: bool) -> Requests:
    return Requests(histories, thoughts, exclude=histories if exclude_seen else None)


def rank_in_blocks(
    decoder: Decoder, requests: Requests, k: int, progress: Progress | None = None, block: int = BLOCK
) -> Rankings:
    """Ranks many requests, so that memory stays bounded and progress moves."""
    parts = []
    for start in range(0, len(requests), block):
        stop = min(start + block, len(requests))
        parts.append(decoder.rank(requests.take(range(start, stop)), k))
        if progress is not None:
            progress(stop, len(requests))
    return Rankings.concatenate(parts)


@dataclass(frozen=True)
class Cost:
    """What one call cost.

    Args:
        seconds: by phase; they add up to the time from the histories to the lists.
        model_calls: forward passes of the backbone.
        draft_calls: forward passes of a smaller model that drafts for it.
    """

    seconds: Mapping[Phase, float]
    model_calls: int
    draft_calls: int


class Service:
    """A decoder as its users meet it: histories in, lists out. It books what each answer costs.

    A decoder that needs thoughts is timed from outside: prompts are tokenised, the thinker reads them in one pass,
    and everything inside `rank` is search. Any other decoder books its phases in a `meter` of its own, if it has one;
    what no phase claims is search.

    Args:
        decoder: who answers.
        prompts: history to prompt.
        thinker: prompts to thoughts.
        exclude_seen: whether a history's own items are excluded.
    """

    def __init__(self, decoder: Decoder, prompts: Prompts, thinker: Thinker, *, exclude_seen: bool = False) -> None:
        self.decoder = decoder
        self.prompts = prompts
        self.thinker = thinker
        self.exclude_seen = exclude_seen

    def answer(self, histories: Sequence[Rows], k: int) -> tuple[Rankings, Cost]:
        """The lists of some histories, decoded in one call."""
        return self._think(histories, k) if self.decoder.needs_thoughts else self._rank(histories, k)

    def _think(self, histories: Sequence[Rows], k: int) -> tuple[Rankings, Cost]:
        meter = Meter()
        with meter.phase("tokenise"):
            prompts = [self.prompts.prompt(history) for history in histories]
        with meter.phase("prefill"):
            thoughts = self.thinker.think(prompts)
        with meter.phase("search"):
            rankings = self.decoder.rank(_requests(histories, thoughts, self.exclude_seen), k)
        return rankings, Cost(meter.seconds, 1, 0)

    def _rank(self, histories: Sequence[Rows], k: int) -> tuple[Rankings, Cost]:
        own = getattr(self.decoder, "meter", None)
        meter = own if isinstance(own, Meter) else Meter()
        meter.reset()
        start = time.perf_counter()
        rankings = self.decoder.rank(_requests(histories, None, self.exclude_seen), k)
        seconds = dict(meter.seconds)
        seconds["search"] += max(0.0, time.perf_counter() - start - sum(seconds.values()))
        return rankings, Cost(seconds, meter.model_calls, meter.draft_calls)
