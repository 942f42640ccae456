"""Requests and Rankings: what goes into any decoder, and the shared currency that comes out. Numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from l2d.artifacts import read_arrays, write_arrays
from l2d.errors import ArtifactCorrupt, ConfigError, InternalError

NOTHING = -1
"""Row that fills a list when fewer than k items may be recommended."""

Rows = NDArray[np.int32]


@dataclass(frozen=True)
class Requests:
    """A batch of requests.

    Args:
        histories: rows of each history, oldest first.
        thoughts: hidden states of the prompts, or None for decoders that do not need them. Shape: (requests, width).
        exclude: rows that must not be recommended, per request; None for none.
        allow: the only rows that may be recommended, per request; None (whole, or in one place) for all.
        minimum_entries: least memory entries that a recommended item must have (latent decoders only); with 0, a
            decoder that can recommend an item by its title alone may do so.
    """

    histories: Sequence[Rows]
    thoughts: NDArray[np.float32] | None = None
    exclude: Sequence[Rows] | None = None
    allow: Sequence[Rows | None] | None = None
    minimum_entries: int = 0

    def __post_init__(self) -> None:
        for name in ("thoughts", "exclude", "allow"):
            value = getattr(self, name)
            if value is not None and len(value) != len(self.histories):
                raise ConfigError(f"{name} must match the requests", got=len(value), expected=len(self.histories))
        if self.minimum_entries < 0:
            raise ConfigError("minimum_entries is too small", got=self.minimum_entries, expected="at least 0")

    def __len__(self) -> int:
        return len(self.histories)

    def candidates(self, index: int, items: int) -> NDArray[np.bool_]:
        """Which rows one request may be answered with. Shape: (items,)."""
        allowed = self.allow[index] if self.allow is not None else None
        if allowed is None:
            mask = np.ones(items, dtype=bool)
        else:
            mask = np.zeros(items, dtype=bool)
            mask[allowed] = True
        if self.exclude is not None:
            mask[self.exclude[index]] = False
        return mask

    @property
    def filtered(self) -> bool:
        """Whether any request is restricted by `exclude` or `allow`."""
        return self.allow is not None or any(len(rows) for rows in self.exclude or ())

    def take(self, indices: Sequence[int]) -> Requests:
        """The requests at the given places, in that order."""
        return Requests(
            [self.histories[i] for i in indices],
            None if self.thoughts is None else self.thoughts[list(indices)],
            None if self.exclude is None else [self.exclude[i] for i in indices],
            None if self.allow is None else [self.allow[i] for i in indices],
            self.minimum_entries,
        )


@dataclass(frozen=True)
class Rankings:
    """The recommended rows of a batch of requests, best first.

    Ties in score are broken by the smaller row, everywhere in l2d.

    Args:
        rows: catalogue rows, `NOTHING` behind the end of a short list. Shape: (requests, k), int32.
        scores: non-increasing along a list, -inf where the row is `NOTHING`. Shape: (requests, k), float32.

    Raises:
        InternalError: a row stands twice in a list, a gap inside a list, or scores that rise.
    """

    rows: Rows
    scores: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.rows.shape != self.scores.shape or self.rows.ndim != 2:
            raise InternalError("rows and scores must be equal matrices", got=(self.rows.shape, self.scores.shape))
        empty = self.rows == NOTHING
        if (empty[:, :-1] & ~empty[:, 1:]).any():
            raise InternalError("a ranking has a gap")
        if (self.scores[:, :-1] < self.scores[:, 1:]).any() or np.isnan(self.scores).any():
            raise InternalError("scores of a ranking rise or are not numbers")
        ordered = np.sort(self.rows, axis=1)
        if ((ordered[:, :-1] == ordered[:, 1:]) & (ordered[:, 1:] != NOTHING)).any():
            raise InternalError("a ranking holds a row twice")

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def k(self) -> int:
        """List length."""
        return self.rows.shape[1]

    def save(self, path: Path) -> None:
        """Writes an .npz file, atomically."""
        write_arrays(path, {"rows": self.rows, "scores": self.scores})

    @classmethod
    def load(cls, path: Path) -> Rankings:
        """Reads what `save` wrote.

        Raises:
            ArtifactMissing: there is no such file.
            ArtifactCorrupt: it does not hold rankings.
        """
        arrays = read_arrays(path)
        try:
            return cls(arrays["rows"], arrays["scores"])
        except (KeyError, InternalError) as error:
            raise ArtifactCorrupt(f"{path} does not hold rankings", got=error, cure="rank again") from error

    @classmethod
    def concatenate(cls, parts: Sequence[Rankings]) -> Rankings:
        """Joins batches of the same k."""
        return cls(np.concatenate([part.rows for part in parts]), np.concatenate([part.scores for part in parts]))


class Decoder(Protocol):
    """What every decoder, language or latent, and every baseline is: requests -> Rankings.

    `needs_thoughts` says whether `Requests.thoughts` must be filled.
    """

    name: str
    needs_thoughts: bool

    def rank(self, requests: Requests, k: int) -> Rankings:
        """Ranks the whole catalogue for each request and keeps the best k."""
        ...


def top_k(scores: NDArray[np.floating], k: int, allowed: NDArray[np.bool_] | None = None) -> Rankings:
    """The k best columns of each line, the smaller row first among equal scores.

    Args:
        scores: higher is better, -inf never appears in a list. Shape: (requests, items).
        k: list length; may exceed the number of items.
        allowed: rows that may appear. Shape: (requests, items) or (items,); None for all.

    Raises:
        ConfigError: k below 1.
        InternalError: a score is not a number.
    """
    if k < 1:
        raise ConfigError("k is too small", got=k, expected="at least 1")
    scores = np.asarray(scores, dtype=np.float32)
    if np.isnan(scores).any():  # partition counts nan as best: the list would come out short, without a sign
        raise InternalError("a score is not a number", expected="finite scores, or -inf for rows that must not appear")
    if allowed is not None:
        scores = np.where(allowed, scores, -np.inf)
    requests, items = scores.shape
    kept = min(k, items)
    rows = np.full((requests, k), NOTHING, dtype=np.int32)
    best = np.full((requests, k), -np.inf, dtype=np.float32)
    if kept < items:
        # The k-th score decides; rows that tie with it are taken in row order, so that the rule holds at the edge.
        threshold = np.partition(scores, items - kept, axis=1)[:, items - kept]
    else:
        threshold = np.full(requests, -np.inf, dtype=np.float32)
    for line in range(requests):
        found = np.flatnonzero(scores[line] >= threshold[line])
        found = found[np.argsort(-scores[line, found], kind="stable")][:kept]
        found = found[scores[line, found] > -np.inf]
        rows[line, : len(found)] = found
        best[line, : len(found)] = scores[line, found]
    return Rankings(rows, best)
