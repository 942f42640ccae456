"""How latent decoding answers to its settings: quality against M and against memory kept, latency against k."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2d.catalog import Catalog
from l2d.compare.asking import Progress, Service
from l2d.decode import Constants, Global, Local, Vote
from l2d.decode.fit import NEIGHBOURS
from l2d.decode.latent import neighbourhoods, rank_neighbourhoods
from l2d.errors import ConfigError
from l2d.evaluate import hit_ranks, mean_metrics
from l2d.latency import in_turn
from l2d.memory import Entries, ItemVectors, aggregate
from l2d.ranking import Rankings, Requests, Rows

SHARES = (1.0, 0.5, 0.3, 0.1)
"""Shares of the memory that are kept."""

LIST_LENGTHS = (1, 5, 10, 20, 50, 100)
"""k that are timed."""

CUT = 10
"""Quality is HR and NDCG at this list length."""

Point = dict[str, Any]


@dataclass(frozen=True)
class Latent:
    """A memory with its fitted constants and the requests it is tried on.

    Args:
        entries: the memory.
        items: its item vectors.
        constants: M of local and M, tau of vote.
        requests: with thoughts.
        targets: the row that came next. Shape: (requests,).
        catalog: the items.
    """

    entries: Entries
    items: ItemVectors
    constants: Constants
    requests: Requests
    targets: Rows
    catalog: Catalog

    def point(self, decoder: str, rankings: Rankings, **setting: float | None) -> Point:
        """One point of a curve: the setting and what the lists are worth there."""
        means = mean_metrics(hit_ranks(rankings, self.targets, self.catalog), rankings.k)
        return {"decoder": decoder, **setting, **{name: means[name] for name in (f"hr@{CUT}", f"ndcg@{CUT}")}}

    def keep(self, share: float, seed: int) -> Latent:
        """The same with a random part of the entries. Of one seed, the smaller part lies in the larger one."""
        order = np.random.default_rng([seed, 23]).permutation(len(self.entries))
        kept = self.entries.take(np.sort(order[: max(1, round(share * len(order)))]))
        items = aggregate(kept, len(self.items))
        return Latent(kept, items, self.constants, self.requests, self.targets, self.catalog)

    @property
    def decoders(self) -> tuple[Global, Local, Vote]:
        """The latent decoders of this memory."""
        local, vote = self.constants.local, self.constants.vote
        return Global(self.items), local(self.entries, self.items), vote(self.entries, self.items)


def quality_by_neighbours(
    latent: Latent, sizes: Sequence[int] = NEIGHBOURS, progress: Progress | None = None
) -> dict[str, Any]:
    """HR@10 and NDCG@10 of local and vote against M, tau as fitted; global stands beside them without an M.

    The neighbours of the largest M are searched once, and every point reuses their head.

    Args:
        latent: what is tried.
        sizes: M to try; those above the number of entries are left out.
        progress: called with points (done, total).

    Returns:
        {"users", "fitted": {"local", "vote"}, "points": [{"decoder", "neighbours", "hr@10", "ndcg@10"}]}.
    """
    sizes = sorted({size for size in sizes if size <= len(latent.entries)}) or [len(latent.entries)]
    found = neighbourhoods(latent.entries, latent.items, latent.requests, sizes[-1])
    known, local, vote = latent.decoders
    points = [latent.point("global", known.rank(latent.requests, CUT), neighbours=None)]
    for place, size in enumerate(sizes):
        heads = found.first(size)
        for name, score in ((local.name, local.score), (vote.name, vote.score)):
            lists = rank_neighbourhoods(heads, latent.requests, CUT, score, latent.items)
            points.append(latent.point(name, lists, neighbours=size))
        if progress is not None:
            progress(place + 1, len(sizes))
    fitted = {"local": latent.constants.local_neighbours, "vote": latent.constants.vote_neighbours}
    return {"users": len(latent.requests), "fitted": fitted, "points": points}


def quality_by_memory(
    latent: Latent, shares: Sequence[float] = SHARES, *, seed: int = 0, progress: Progress | None = None
) -> dict[str, Any]:
    """HR@10 and NDCG@10 of global, local and vote when only a share of the entries, drawn at random, is kept.

    Constants stay as fitted on the whole memory. Items whose entries are all gone cannot be recommended.

    Args:
        latent: what is tried.
        shares: parts to keep, above 0 and at most 1.
        seed: draws the entries.
        progress: called with shares (done, total).

    Returns:
        {"users", "entries", "points": [{"decoder", "share", "hr@10", "ndcg@10"}]}.

    Raises:
        ConfigError: a share out of range.
    """
    if any(not 0 < share <= 1 for share in shares):
        raise ConfigError("a share of the memory is out of range", got=list(shares), expected="above 0, at most 1")
    points = []
    for place, share in enumerate(shares):
        part = latent.keep(share, seed)
        points += [part.point(decoder.name, decoder.rank(part.requests, CUT), share=share) for decoder in part.decoders]
        if progress is not None:
            progress(place + 1, len(shares))
    return {"users": len(latent.requests), "entries": len(latent.entries), "points": points}


def latency_by_length(
    services: Mapping[str, Service],
    histories: Sequence[Rows],
    lengths: Sequence[int] = LIST_LENGTHS,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Median milliseconds of single requests against k, all decoders and lengths taken in turn.

    Args:
        services: decoders by name.
        histories: what each is asked, one at a time.
        lengths: k to time.
        progress: called with histories (done, total).

    Returns:
        {"requests", "points": [{"decoder", "k", "p50_ms"}]}.
    """

    def call(name: str, k: int, history: Rows) -> None:
        services[name].answer([history], k)

    settings = {f"{name} {k}": (name, k) for name in services for k in lengths}
    calls: dict[str, Callable[[NDArray[np.int32]], None]] = {
        key: partial(call, name, k) for key, (name, k) in settings.items()
    }
    times = in_turn(calls, histories, warmup=1, progress=progress)
    points = [{"decoder": name, "k": k, "p50_ms": float(np.median(times[key]))} for key, (name, k) in settings.items()]
    return {"requests": len(histories), "points": points}
