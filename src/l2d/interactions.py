"""Log -> per-user histories -> examples (history, target); splits; the prepared data set on disk."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from l2d.artifacts import folder_checksums, read_json, sha256_text, verify_checksums, write_json
from l2d.catalog import Catalog
from l2d.errors import ArtifactCorrupt, ArtifactMissing, DataError

UNKNOWN_TIME = -1
"""Timestamp of an interaction whose time nobody recorded."""

SplitName = Literal["train", "valid", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "valid", "test")


@dataclass(frozen=True)
class Interactions:
    """Who took what, when: one entry per interaction, each user's entries together and oldest first.

    Args:
        user_ids: the user's ids as text, unique.
        user: index into `user_ids`. Shape: (interactions,), int32.
        row: catalogue row. Shape: (interactions,), int32.
        timestamp: unix seconds, or `UNKNOWN_TIME`. Shape: (interactions,), int64.
    """

    user_ids: tuple[str, ...]
    user: NDArray[np.int32]
    row: NDArray[np.int32]
    timestamp: NDArray[np.int64]

    def __post_init__(self) -> None:
        if not len(self.user) == len(self.row) == len(self.timestamp):
            raise DataError(
                "interaction columns differ in length", got=(len(self.user), len(self.row), len(self.timestamp))
            )
        if len(self.user) == 0:
            raise DataError("there are no interactions", cure="check the file and the filters")

    def __len__(self) -> int:
        return len(self.row)

    @property
    def timed(self) -> bool:
        """Whether every interaction has a time."""
        return bool((self.timestamp != UNKNOWN_TIME).all())

    @cached_property
    def user_starts(self) -> NDArray[np.int64]:
        """Where each run of one user begins, closed by the number of interactions. Shape: (runs + 1,)."""
        changes = np.flatnonzero(np.diff(self.user)) + 1
        return np.concatenate([[0], changes, [len(self.user)]]).astype(np.int64)


class Example(NamedTuple):
    """One sample: the rows of a history, oldest first, and the row that came next."""

    history: NDArray[np.int32]
    target: int


@dataclass(frozen=True)
class Examples:
    """Samples as views into interactions: sample i has history `row[start[i]:end[i]]` and target `row[end[i]]`.

    Args:
        interactions: the log that the positions point into.
        start: first position of the history. Shape: (examples,), int64.
        end: position of the target, one past the history. Shape: (examples,), int64.
    """

    interactions: Interactions
    start: NDArray[np.int64]
    end: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.start)

    def __getitem__(self, index: int) -> Example:
        return Example(self.history(index), int(self.interactions.row[self.end[index]]))

    def __iter__(self) -> Iterator[Example]:
        return (self[index] for index in range(len(self)))

    def history(self, index: int) -> NDArray[np.int32]:
        """Rows of one history, oldest first."""
        return self.interactions.row[self.start[index] : self.end[index]]

    def histories(self) -> list[NDArray[np.int32]]:
        """Rows of every history."""
        return [self.history(index) for index in range(len(self))]

    @property
    def target(self) -> NDArray[np.int32]:
        """Row of every target. Shape: (examples,)."""
        return self.interactions.row[self.end]

    @property
    def user(self) -> NDArray[np.int32]:
        """Index of every example's user. Shape: (examples,)."""
        return self.interactions.user[self.end]

    @property
    def timestamp(self) -> NDArray[np.int64]:
        """Time of every target, unix seconds. Shape: (examples,)."""
        return self.interactions.timestamp[self.end]

    @property
    def last_timestamp(self) -> NDArray[np.int64]:
        """Time of every history's last item, `UNKNOWN_TIME` for an empty history. Shape: (examples,)."""
        last = self.interactions.timestamp[np.maximum(self.end - 1, 0)]
        return np.where(self.end > self.start, last, UNKNOWN_TIME)

    @property
    def history_length(self) -> NDArray[np.int64]:
        """Items in every history. Shape: (examples,)."""
        return self.end - self.start

    def take(self, indices: NDArray[np.integer[Any]]) -> Examples:
        """The examples at the given places, in that order."""
        return Examples(self.interactions, self.start[indices], self.end[indices])


@dataclass(frozen=True)
class Splits:
    """Examples to learn from, to choose by and to report."""

    train: Examples
    valid: Examples
    test: Examples

    def __getitem__(self, name: SplitName) -> Examples:
        return {"train": self.train, "valid": self.valid, "test": self.test}[name]


def block_start(position: NDArray[np.int64], limit: int) -> NDArray[np.int64]:
    """Where a history that ends before `position` begins, if it may hold at most `limit` items.

    A history over the limit loses its oldest half at once (with limit 10: 11 items become 6, which grow to 10
    again), so that neighbouring prompts of one user stay prefixes of each other.

    Args:
        position: number of earlier interactions of the same user. Shape: (n,).
        limit: most items in a history.
    """
    step = max(1, limit // 2)
    over = np.maximum(position - limit, 0)
    return -(-over // step) * step


def examples_of(interactions: Interactions, max_history: int) -> Examples:
    """Every interaction that has an earlier one of the same user, as a target with its history."""
    starts = interactions.user_starts
    first = np.repeat(starts[:-1], np.diff(starts))
    position = np.arange(len(interactions)) - first
    end = np.flatnonzero(position > 0)
    start = first[end] + block_start(position[end], max_history)
    return Examples(interactions, start.astype(np.int64), end.astype(np.int64))


def split_by_time(
    interactions: Interactions, *, max_history: int = 10, fractions: tuple[float, float] = (0.8, 0.1)
) -> Splits:
    """Cuts at two global times, so that no training target is later than a validation target.

    All targets of one instant fall on the same side of a cut.

    Raises:
        DataError: some interaction has no time, or a part stays empty.
    """
    if not interactions.timed:
        raise DataError(
            "a split by time needs a time for every interaction",
            cure="name the --time-column, or use --split leave-last-out",
        )
    examples = examples_of(interactions, max_history)
    times = np.sort(examples.timestamp)
    if len(times) < 3:
        raise DataError(
            "too few interactions to split", got=f"{len(times)} targets", expected="at least 3", cure="use a larger log"
        )
    valid_from, test_from = (
        times[min(len(times) - 1, int(len(times) * share))] for share in (fractions[0], sum(fractions))
    )
    when = examples.timestamp
    parts = (when < valid_from, (when >= valid_from) & (when < test_from), when >= test_from)
    return _checked(Splits(*(examples.take(np.flatnonzero(part)) for part in parts)))


def split_leave_last_out(interactions: Interactions, *, max_history: int = 10) -> Splits:
    """Each user's last item is for test, the last but one for validation, the rest for training.

    Other users' training targets may be later than a user's test target: this protocol leaks time.
    """
    examples = examples_of(interactions, max_history)
    last = interactions.user_starts[1:] - 1
    is_test = np.isin(examples.end, last)
    # Before a user's only item lies the last item of the user before: a test target, which must not be chosen by.
    is_valid = np.isin(examples.end, last - 1) & ~is_test
    parts = (~is_test & ~is_valid, is_valid, is_test)
    return _checked(Splits(*(examples.take(np.flatnonzero(part)) for part in parts)))


def _checked(splits: Splits) -> Splits:
    for name in SPLITS:
        if len(splits[name]) == 0:
            raise DataError(
                f"the {name} split is empty",
                expected="at least one example in each part",
                cure="use a longer log, or another --split; users with a single item give no example",
            )
    return splits


def chains(examples: Examples) -> list[NDArray[np.int32]]:
    """Undoes the cutting into samples: maximal item sequences in which each sample extends the one before it.

    A user's next sample is joined to the one before it where its history ends with that one's history and target.
    """
    sequences: list[list[int]] = []
    previous_user = -1
    users = examples.user
    for index in np.argsort(users, kind="stable").tolist():
        history, target = examples[index]
        user = int(users[index])
        known = sequences[-1] if user == previous_user else []
        if known and len(history) <= len(known) and known[-len(history) :] == history.tolist():
            known.append(target)
        else:
            sequences.append([*history.tolist(), target])
        previous_user = user
    return [np.array(sequence, dtype=np.int32) for sequence in sequences]


@dataclass(frozen=True)
class Dataset:
    """What `l2d prepare` writes: catalogue, interactions, splits, and a record of how they came about.

    Args:
        catalog: the items.
        interactions: all interactions, every split's.
        splits: the examples.
        info: what was read, dropped and why, with the options used (JSON values).
    """

    catalog: Catalog
    interactions: Interactions
    splits: Splits
    info: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def train_rows(self) -> NDArray[np.int32]:
        """Rows that occur in a training history or as a training target: all that may be known at the cut."""
        train = self.splits.train
        deltas = np.zeros(len(self.interactions) + 1, dtype=np.int64)
        np.add.at(deltas, train.start, 1)
        np.add.at(deltas, train.end + 1, -1)
        return np.unique(self.interactions.row[np.cumsum(deltas[:-1]) > 0])

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the catalogue, the interactions and the splits."""
        arrays = [self.interactions.user, self.interactions.row, self.interactions.timestamp]
        arrays += [part for name in SPLITS for part in (self.splits[name].start, self.splits[name].end)]
        return sha256_text(self.catalog.fingerprint, *(np.ascontiguousarray(array).tobytes() for array in arrays))

    def user_history(self, user_id: str | int, limit: int = 10) -> NDArray[np.int32]:
        """The latest rows of one user, oldest first.

        Raises:
            DataError: no such user.
        """
        index = self._user_index.get(str(user_id))
        if index is None:
            raise DataError("unknown user", got=repr(user_id), cure="give a history with --history instead")
        places = np.flatnonzero(self.interactions.user == index)
        if "windows" in self.info:  # each window repeats its history: the last one of the user holds the latest rows
            ends = np.concatenate([self.splits[name].end for name in SPLITS])
            starts = np.concatenate([self.splits[name].start for name in SPLITS])
            last = int(np.flatnonzero(np.isin(ends, places))[-1])
            return self.interactions.row[starts[last] : ends[last] + 1][-limit:]
        return self.interactions.row[places][-limit:]

    @cached_property
    def _user_index(self) -> dict[str, int]:
        return {user: index for index, user in enumerate(self.interactions.user_ids)}

    def save(self, folder: Path) -> None:
        """Writes the Parquet files into an existing folder, and last `dataset.json` with their checksums."""
        self.catalog.save(folder / "catalog.parquet")
        pl.DataFrame({"user_id": self.interactions.user_ids}, schema={"user_id": pl.String}).write_parquet(
            folder / "users.parquet"
        )
        log = {"user": self.interactions.user, "row": self.interactions.row, "timestamp": self.interactions.timestamp}
        pl.DataFrame(log).write_parquet(folder / "interactions.parquet")
        parts = [
            pl.DataFrame({"start": self.splits[name].start, "end": self.splits[name].end}).with_columns(
                split=pl.lit(name)
            )
            for name in SPLITS
        ]
        pl.concat(parts).write_parquet(folder / "examples.parquet")
        record = {"format": 1, "fingerprint": self.fingerprint, "info": self.info, "files": folder_checksums(folder)}
        write_json(folder / "dataset.json", record)

    @classmethod
    def load(cls, folder: Path) -> Dataset:
        """Reads what `save` wrote, checksums first.

        Raises:
            ArtifactMissing: not a prepared folder.
            ArtifactCorrupt: a file changed since it was written.
        """
        if not (folder / "dataset.json").is_file():
            raise ArtifactMissing(f"{folder} is not prepared data", cure="run `l2d prepare SOURCE --out DATA` first")
        record = read_json(folder / "dataset.json")
        verify_checksums(folder, record["files"])
        users = tuple(pl.read_parquet(folder / "users.parquet")["user_id"].to_list())
        log = pl.read_parquet(folder / "interactions.parquet")
        interactions = Interactions(users, log["user"].to_numpy(), log["row"].to_numpy(), log["timestamp"].to_numpy())
        table = pl.read_parquet(folder / "examples.parquet")
        parts = {}
        for name in SPLITS:
            part = table.filter(pl.col("split") == name)
            parts[name] = Examples(interactions, part["start"].to_numpy(), part["end"].to_numpy())
        dataset = cls(Catalog.load(folder / "catalog.parquet"), interactions, Splits(**parts), record["info"])
        if dataset.fingerprint != record["fingerprint"]:
            raise ArtifactCorrupt(f"{folder} does not match its fingerprint", cure="run `l2d prepare` again")
        return dataset
