"""Fits M and tau on validation thoughts: the constants of a run, written to `decoder.json` with the whole grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from l2d.artifacts import read_json, write_json
from l2d.decode.calibrate import CUT, Calibration
from l2d.decode.cold import Fading
from l2d.decode.latent import Global, Local, Vote, neighbourhoods, rank_neighbourhoods
from l2d.errors import ArtifactCorrupt, ConfigError
from l2d.memory import Entries, ItemVectors, Near
from l2d.ranking import Rankings, Requests

NEIGHBOURS = (10, 20, 50, 100, 200, 500, 1000, 2000)
"""M that are tried; those above the number of entries are left out."""

TEMPERATURES = (0.05, 0.1, 0.2, 0.4, 0.8)
"""tau that are tried, as multiples of the mean squared distance of validation thoughts to their M neighbours."""

LATER: Mapping[str, Any] = {"auto": Calibration, "recall": Calibration, "cold": Fading}
"""What may be known besides, and what reads it."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Constants:
    """What validation chose.

    Args:
        local_neighbours: M of local.
        vote_neighbours: M of vote.
        vote_temperature: tau of vote, in squared units of the thoughts.
        requests: validation requests it was chosen on.
        grid: NDCG@10 of everything tried: {"decoder", "neighbours", "multiple", "temperature", "ndcg@10"}, None
            where a decoder has no such constant.
        auto: what `calibrate` chose; None before.
        recall: likewise for recall; None also where it was calibrated before there was a recall.
        cold: how fast popularity fades for those without a history; None where nobody asked validation.
    """

    local_neighbours: int
    vote_neighbours: int
    vote_temperature: float
    requests: int
    grid: tuple[Mapping[str, Any], ...]
    auto: Calibration | None = None
    recall: Calibration | None = None
    cold: Fading | None = None

    def local(self, entries: Entries, items: ItemVectors) -> Local:
        """The local decoder with these constants."""
        return Local(entries, items, self.local_neighbours)

    def vote(self, entries: Entries, items: ItemVectors) -> Vote:
        """The vote decoder with these constants."""
        return Vote(entries, items, self.vote_neighbours, self.vote_temperature)

    def save(self, path: Path) -> None:
        """Writes JSON, atomically."""
        write_json(path, {"format": 1, **asdict(self)})

    @classmethod
    def load(cls, path: Path) -> Constants:
        """Reads what `save` wrote.

        Raises:
            ArtifactMissing: there is no such file.
            ArtifactCorrupt: it holds something else.
        """
        record = read_json(path)
        try:
            return cls(
                int(record["local_neighbours"]), int(record["vote_neighbours"]), float(record["vote_temperature"]),
                int(record["requests"]), tuple(record["grid"]),
                *(None if record.get(name) is None else made.of(record[name]) for name, made in LATER.items()),
            )  # fmt: skip
        except (AttributeError, ConfigError, KeyError, TypeError, ValueError) as error:
            raise ArtifactCorrupt(
                "not the constants of a decoder", file=path, got=repr(error), cure="run `l2d memory build RUN` again"
            ) from error


def fit(
    entries: Entries,
    items: ItemVectors,
    requests: Requests,
    targets: NDArray[np.int32],
    *,
    neighbours: Sequence[int] = NEIGHBOURS,
    temperatures: Sequence[float] = TEMPERATURES,
    progress: Progress | None = None,
) -> Constants:
    """Chooses M of local and (M, tau) of vote by NDCG@10; the earlier grid point wins a tie.

    The neighbours of the largest M are searched once, and every grid point reuses their head.

    Args:
        entries: the memory, without any validation target.
        items: its item vectors.
        requests: validation requests with thoughts, filtered as real ones will be.
        targets: the row that came next. Shape: (requests,).
        neighbours: M to try.
        temperatures: tau to try, as multiples.
        progress: called with steps (done, total).

    Raises:
        ConfigError: no requests, an empty memory, or an empty grid.
    """
    sizes = _sizes(neighbours, len(entries))
    if not len(requests) or not temperatures or len(targets) != len(requests):
        raise ConfigError(
            "nothing to fit on",
            got=f"{len(requests)} requests, {len(targets)} targets, {len(temperatures)} temperatures",
        )
    steps = 2 + len(sizes) * (1 + len(temperatures))
    grid: list[dict[str, Any]] = []

    def note(
        decoder: str, rankings: Rankings, size: int | None, multiple: float | None, temperature: float | None
    ) -> None:
        figure = float(gains(rankings, targets).mean())
        grid.append(
            {
                "decoder": decoder,
                "neighbours": size,
                "multiple": multiple,
                "temperature": temperature,
                f"ndcg@{CUT}": figure,
            }
        )
        if progress is not None:
            progress(1 + len(grid), steps)

    found = neighbourhoods(entries, items, requests, sizes[-1])
    note("global", Global(items).rank(requests, CUT), None, None, None)
    for size in sizes:
        heads = found.first(size)
        note(
            "local",
            rank_neighbourhoods(heads, requests, CUT, Local(entries, items, size).score, items),
            size,
            None,
            None,
        )
        spread = _mean_squared(heads)
        for multiple in temperatures:
            vote = Vote(entries, items, size, multiple * spread)
            note("vote", rank_neighbourhoods(heads, requests, CUT, vote.score, items), size, multiple, vote.temperature)
    by_local, by_vote = _winner(grid, "local"), _winner(grid, "vote")
    return Constants(by_local["neighbours"], by_vote["neighbours"], by_vote["temperature"], len(requests), tuple(grid))


def gains(rankings: Rankings, targets: NDArray[np.int32]) -> NDArray[np.float64]:
    """NDCG of each list for its one target: 1 / log2(1 + rank), 0 where it is not listed. Shape: (requests,)."""
    hits = rankings.rows == targets[:, None]
    return (hits / np.log2(np.arange(rankings.k) + 2)).sum(axis=1)


def _sizes(neighbours: Sequence[int], entries: int) -> list[int]:
    if not entries or not neighbours or min(neighbours) < 1:
        raise ConfigError(
            "nothing to fit", got=f"{entries} entries, M in {list(neighbours)}", expected="entries, and M of at least 1"
        )
    return sorted({size for size in neighbours if size <= entries}) or [entries]


def _mean_squared(heads: Near) -> float:
    mean = float(heads.squared.mean()) if len(heads.squared) else 0.0
    return mean or 1.0  # all neighbours at distance zero: any temperature gives the same votes


def _winner(grid: Sequence[dict[str, Any]], decoder: str) -> dict[str, Any]:
    return max((point for point in grid if point["decoder"] == decoder), key=lambda point: point[f"ndcg@{CUT}"])
